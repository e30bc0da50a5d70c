"""evaluation-bound: evaluations take a large part of the time.

Looks for: at least three tenths of a run's time spent in evaluations, the start left out, and a minute or more.
Why it matters: that time trains nothing. A few hundred evaluations tell no more than twenty, and a part of the text as
    much as all of it.
Evidence: seconds of evaluations and of the whole run, over all attempts.
Remedy: rarer evaluations (`evaluation.every`), or shorter ones: `evaluation.gap_tokens`, what is judged of the training
    text for the generalization gap, and `evaluation.max_tokens`, of the validation text.
False alarms: none that cost anything: it is a remark.
Source: own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.runs import format

MUCH: Final = 0.3
LEAST_SECONDS: Final = 60.0
"""Of evaluations: nobody minds less."""
SOUND: Final = 0.1
"""The part of the time that the remedies aim at."""


def check(case: Case) -> Iterator[Finding]:
    """A remark, once the run is over."""
    ended = case.history.ended
    split = {} if ended is None else dict(ended.time_split)
    whole, spent = sum(split.values()) - split.get("start", 0.0), split.get("evaluation", 0.0)
    if spent < LEAST_SECONDS or spent < MUCH * whole:
        return
    num = len(case.history.evaluation_seconds)
    text = f"{num} evaluation{'s' if num != 1 else ''} took {format.duration(spent)} of {format.duration(whole)}"
    yield Finding(
        "evaluation-bound",
        "info",
        0.95,
        0,
        f"evaluations took {format.duration(spent)}, {spent / whole:.0%} of the time",
        (Evidence("evaluation_seconds", (0, case.history.last_step), spent / whole, SOUND, text),),
        remedies=tuple(_remedies(case, spent * (1 - SOUND) / (SOUND * max(whole - spent, 1e-9)))),
    )


def _remedies(case: Case, times: float) -> Iterator[Remedy]:
    """What makes them so many times as cheap: rarer, while five are left; shorter, the gap first where it is most."""
    if case.target != "trimtab":
        yield Remedy("evaluate more seldom, or on less text")
        return
    every, gap, most = (case.setting(f"evaluation.{key}") for key in ("every", "gap_tokens", "max_tokens"))
    validation = case.number("validation", "tokens")
    judged = min((float(size) for size in (most, validation) if isinstance(size, int | float)), default=None)
    if isinstance(gap, int) and judged is not None:
        gap = min(gap, int(judged))
    shorter: list[tuple[str, str, int]] = []
    if isinstance(gap, int) and gap > 1024 and (judged is None or gap >= judged):
        shorter.append(("measure the generalization gap on", "evaluation.gap_tokens", max(1024, int(gap / times))))
    if isinstance(every, int) and math.ceil(every * times) <= case.planned_steps / 5:
        rarer = math.ceil(every * times)
        yield Remedy(f"evaluate every {rarer:,} steps", "trimtab", {"evaluation.every": rarer})
    elif judged is not None and judged > 4096:
        shorter.append(("judge of the validation text", "evaluation.max_tokens", max(4096, int(judged / times))))
    for what, key, tokens in shorter:
        yield Remedy(f"{what} {tokens:,} tokens", "trimtab", {key: tokens})
    if not shorter:
        yield Remedy("evaluate more seldom (evaluation.every), or on less text (evaluation.max_tokens)")
