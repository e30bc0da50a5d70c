"""evaluation-bound: evaluations take a large part of the time.

Looks for: at least three tenths of a run's time spent in evaluations, the start left out, and a minute or more; a
    warning from 55 % on, of some seconds already, of a run that came to half of its steps and of four
    evaluations and more, the first of which counts no longer than a usual one. Of another trainer's log, where no
    callback measured, a quarter, by what each took beside what a usual step took, however short the run was.
Why it matters: that time trains nothing. A few hundred evaluations tell no more than twenty, and a part of the text as
    much as all of it.
Evidence: seconds of evaluations and of the whole run, over all attempts.
Remedy: rarer evaluations (`evaluation.every`), and where five would not be left, shorter ones, too:
    `evaluation.max_tokens`, what is judged of the validation text, or `evaluation.gap_tokens`, of the training text for
    the generalization gap.
False alarms: none that cost anything: it is a remark, but where most of the time goes there, and a warning in a log
    that tells of evaluations' seconds.
Source: own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy, Severity
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.medians import median
from trimtab.runs import format

MUCH: Final = 0.3
LEAST_SECONDS: Final = 60.0
"""Of evaluations: nobody minds less."""
MOST: Final = 0.55
"""Of the time: the run rather evaluates than trains."""
A_FEW_SECONDS: Final = 3.0
GRAVE: Final = 0.25
"""Of the time that a log of another trainer tells of: as of waiting for data."""
OF_ALL: Final = 0.4
"""The same, where only the time of all is known, in which much else lies."""
FEWEST: Final = 4
"""Evaluations, of such a log, or that could be rarer."""
SOUND: Final = 0.1
"""The part of the time that the remedies aim at."""
LEFT: Final = 5
"""Evaluations that a run should keep."""
FEWEST_TOKENS: Final = 4096
"""Of the validation text, that tell anything."""


def check(case: Case) -> Iterator[Finding]:
    """A remark, once the run is over, also of one that a callback watched; a warning on a log of another trainer."""
    ended = case.history.ended
    split = {} if ended is None else dict(ended.time_split)
    if case.target != "trimtab" and not split:
        yield from _foreign(case)
        return
    whole, spent = sum(split.values()) - split.get("start", 0.0), split.get("evaluation", 0.0)
    # One that was cut off soon after an evaluation would have trained on.
    most = _is_most(case, spent, whole) and case.history.last_step >= 0.5 * case.planned_steps
    if most and spent < LEAST_SECONDS:
        yield _finding(case, spent, whole, "warning")
    elif spent >= LEAST_SECONDS and spent >= MUCH * whole:
        yield _finding(case, spent, whole, "warning" if most else "info")


def _is_most(case: Case, spent: float, whole: float) -> bool:
    """Whether several evaluations took most of the time, without what the first took more than usual: it compiles, and
    fills caches, however rare they are."""
    seconds = np.array(case.history.evaluation_seconds)
    if len(seconds) < FEWEST:
        return False
    first = max(float(seconds[0]) - median(seconds), 0.0)
    return spent - first >= max(A_FEW_SECONDS, MOST * (whole - first))


def _foreign(case: Case) -> Iterator[Finding]:
    """By the seconds of each evaluation, and of a usual step or of the whole run."""
    seconds = np.array(case.history.evaluation_seconds)
    seconds = seconds[np.isfinite(seconds) & (seconds >= 0)]
    if len(seconds) < FEWEST:
        return
    spent = float(seconds.sum())
    training, whole, least = _training_seconds(case), case.number("log", "train_runtime"), OF_ALL
    if training is not None:
        whole, least = spent + training, GRAVE
    if whole is not None and least * whole <= spent < whole:
        yield _finding(case, spent, whole, "warning")


def _training_seconds(case: Case) -> float | None:
    """A usual step's time as often as there were steps; None where rows are epochs, or no step's time is known."""
    lasted, loss = Curve.of(case.history.get("step_seconds")), Curve.of(case.loss())
    if lasted is None or loss is None or len(lasted) < FEWEST or case.counts_epochs:
        return None
    every = int(median(np.diff(lasted.steps)))
    steps = max(lasted.last_step, loss.last_step) - lasted.first_step + every
    return median(lasted.values) * steps


def _finding(case: Case, spent: float, whole: float, severity: Severity) -> Finding:
    num = len(case.history.evaluation_seconds)
    text = f"{num} evaluation{'s' if num != 1 else ''} took {format.duration(spent)} of {format.duration(whole)}"
    return Finding(
        "evaluation-bound",
        severity,
        # Where it cost less than a minute, other warnings matter more.
        0.95 if spent >= LEAST_SECONDS else 0.6,
        0,
        f"evaluations took {format.duration(spent)}, {spent / whole:.0%} of the time",
        (Evidence("evaluation_seconds", (0, case.history.last_step), spent / whole, SOUND, text),),
        remedies=tuple(_remedies(case, spent * (1 - SOUND) / (SOUND * max(whole - spent, 1e-9)))),
    )


def _remedies(case: Case, times: float) -> Iterator[Remedy]:
    """What makes them so many times as cheap: rarer, while five are left, and shorter by what that leaves to do."""
    if case.target != "trimtab":
        yield Remedy("evaluate more seldom, or on less text")
        return
    every, gap, most = (case.setting(f"evaluation.{key}") for key in ("every", "gap_tokens", "max_tokens"))
    validation = case.number("validation", "tokens")
    judged = min((float(size) for size in (most, validation) if isinstance(size, int | float)), default=None)
    if isinstance(gap, int) and judged is not None:
        gap = min(gap, int(judged))
    words, settings, left = [], dict[str, int](), times
    rarer = min(math.ceil(every * times), case.planned_steps // LEFT) if isinstance(every, int) else 0
    if isinstance(every, int) and rarer > every:
        words, settings = [f"evaluate every {rarer:,} steps"], {"evaluation.every": rarer}
        left = every * times / rarer
    if left > 1 and judged is not None and judged > FEWEST_TOKENS:
        tokens = max(FEWEST_TOKENS, int(judged / left))
        words.append(f"judge {tokens:,} tokens of the validation text")
        settings["evaluation.max_tokens"] = tokens
    if settings:
        yield Remedy(", and ".join(words), "trimtab", settings)
    if isinstance(gap, int) and gap > 1024 and (judged is None or gap >= judged):
        tokens = max(1024, int(gap / times))
        yield Remedy(
            f"measure the generalization gap on {tokens:,} tokens", "trimtab", {"evaluation.gap_tokens": tokens}
        )
    elif not settings:
        yield Remedy("evaluate more seldom (evaluation.every), or on less text (evaluation.max_tokens)")
