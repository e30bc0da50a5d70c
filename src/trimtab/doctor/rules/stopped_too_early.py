"""stopped-too-early: all steps are done, and they were far too few.

Looks for: a run that did all its planned steps and saw less than a token for each parameter, whose loss was still
    falling and is no better than what frequencies of single tokens reach on the same text; of fewer than 24 steps, than
    what counting pairs of them reaches; where that is not known, barely below a uniform guess.
Why it matters: nothing is wrong but the length, and every other question waits for a longer run.
Evidence: the loss beside the yardstick; tokens that were seen, for each parameter.
Remedy: more steps; or a model that is small enough for these.
False alarms: trials of a set-up, which are meant to be short.
Source: own; tokens for each parameter: Hoffmann et al. 2022, arXiv 2203.15556, table 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from trimtab.doctor.case import Case
from trimtab.doctor.curves import Curve
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.levels import counted_loss, uniform_loss
from trimtab.runs import format
from trimtab.runs.counted import counts_every_token

STILL: Final = 0.05
"""Of the whole descent: a second half that gains less stands still."""
FEW_VALUES: Final = 24
"""With fewer it is enough that the loss fell."""
NEAR: Final = 0.9
"""Of the loss of a uniform guess: a level above that is near it."""
MOST_EPOCHS: Final = 4.0
"""Of the same text teach nearly as much as new one (Muennighoff et al. 2023, arXiv 2305.16264)."""
BEST: Final = 20.0
"""Tokens for each parameter that make the best of it."""


def check(case: Case) -> Iterator[Finding]:
    """A warning, once the run is over."""
    history, training = case.history, Curve.of(case.loss())
    if training is None or history.last_step < case.planned_steps or not _falls(training):
        return
    judged = Curve.of(case.validation_loss()) or training
    is_short = history.last_step < FEW_VALUES
    counted, uniform = counted_loss(case, "bigram" if is_short else "unigram"), uniform_loss(case)
    if counted is not None:
        level, bound, yardstick = counted, counted, "counting pairs of tokens" if is_short else "counting single tokens"
    elif uniform is not None:
        level, bound, yardstick = uniform, NEAR * uniform, "guessing"
    else:
        return
    lowest = float(judged.values.min())
    tokens, parameters = _tokens(case), case.number("parameters", "total")
    part = None if tokens is None or not parameters else tokens / parameters
    if lowest < bound or (part is None and not is_short) or (part is not None and part >= 1.0):
        return
    metric = "validation/loss" if case.validation_loss() is not None else "train/loss"
    told = f"the loss came to {format.decimal(lowest)} at best, and {yardstick} to {format.decimal(level)}"
    evidence = [Evidence(metric, (judged.first_step, judged.last_step), lowest, level, told)]
    seen = ""
    if part is not None and tokens is not None:
        told = (
            f"{format.short(tokens)} tokens were seen: {part:.2g} for each parameter, where about {BEST:.0f} are best"
        )
        evidence.append(Evidence("facts.parameters", (0, history.last_step), part, BEST, told))
        seen = f", with {part:.2g} tokens for each parameter"
    yield Finding(
        "stopped-too-early",
        "warning",
        0.9 if part is not None else 0.7,
        history.last_step,
        f"{format.count(history.last_step)} steps are far too few{seen}: the model does no better than "
        f"{yardstick}, and its loss was still falling",
        tuple(evidence),
        remedies=tuple(_remedies(case, part)),
    )


def _falls(training: Curve) -> bool:
    """Whether the loss was still falling at the end, as far as so many values tell."""
    if len(training) < FEW_VALUES:
        return training.end < training.start
    middle, until = (training.first_step + training.last_step) / 2, training.last_step
    gained = training.level(middle - 0.1 * (until - middle), middle + 0.1 * (until - middle)) - training.end
    return gained > STILL * training.descent > 0


def _tokens(case: Case) -> float | None:
    series = case.history.get("tokens")
    if series is not None and counts_every_token(case.facts):
        return float(series.columns.total.sum())
    per_step = case.number("tokens_per_step")
    return None if per_step is None else per_step * case.history.last_step


def _remedies(case: Case, part: float | None) -> Iterator[Remedy]:
    times = 10.0 if part is None else BEST / max(part, 1e-9)
    wanted = float(f"{math.ceil(case.history.last_step * min(times, 1e6)):.1e}")
    tokens, per_epoch = _tokens(case), case.number("tokens_per_epoch")
    if tokens and per_epoch and wanted * tokens / case.history.last_step > MOST_EPOCHS * per_epoch:
        few = f"{format.count(wanted)} steps would be {wanted * tokens / case.history.last_step / per_epoch:.2g} epochs"
        yield Remedy(f"more text, as {few} of this", "text")
        wanted = float(f"{math.floor(MOST_EPOCHS * per_epoch * case.history.last_step / tokens):.1e}")
        if wanted < 1.5 * case.history.last_step:
            yield Remedy("a smaller model makes more of few tokens", "text")
            return
    if case.target == "trimtab":
        yield Remedy(f"train for about {format.count(wanted)} steps", "trimtab", {"training.steps": int(wanted)})
    else:
        yield Remedy(f"train for about {format.count(wanted)} steps")
    yield Remedy("a smaller model makes more of few tokens")
