"""What two runs came to: as a whole, and with the same number of steps, tokens or seconds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.acts_on import DEFINES_LOSS, loss_of
from trimtab.doctor.case import Case
from trimtab.doctor.compare.comparison import Change, Outcome, Side, Which
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.evaluations import noise_of_evaluations
from trimtab.runs import format
from trimtab.runs.leaked import MANY, leaked_share
from trimtab.runs.metrics import selection_direction

SURE: Final = 1.96
SCATTER: Final = "what evaluations scatter around their course, which is less than what another seed may do"
AT_END: Final = "at the end"
FEWEST: Final = 5
"""Values from which their scatter around a course can be told."""
ALIKE: Final = 0.02
"""Budgets that differ by less than this part are the same."""


def obstacles_between(a: Side, b: Side, changes: tuple[Change, ...]) -> tuple[str, ...]:
    """Why the losses of two runs cannot be held against each other."""
    told = [
        f"{side.name} was judged on what it was trained on: {share:.0%} of its validation documents are in its "
        "training set, too"
        for side in (a, b)
        if (share := leaked_share(side.case.facts, side.case.config, least=MANY)) is not None
    ]
    tokenizers = [side.case.fact("tokenizer", "fingerprint") for side in (a, b)]
    other_tokens = all(tokenizers) and tokenizers[0] != tokenizers[1]
    if other_tokens:
        told.append("their tokens are not the same, so a loss per token is not; bits per byte can be compared")
    judged = [side.case.fact("validation", "sha256") for side in (a, b)]
    if not other_tokens and all(judged) and judged[0] != judged[1]:
        told.append("they are judged on different validation data")
    limits = [side.case.setting("evaluation.max_tokens") for side in (a, b)]
    if any(change.what == "evaluation.max_tokens" for change in changes):
        told.append(f"they are judged on different amounts: evaluation.max_tokens is {limits[0]} and {limits[1]}")
    told += [
        f"their losses are not of one kind: {change.what} is {change.a} and {change.b}"
        for change in changes
        if change.what in DEFINES_LOSS
        and None not in (change.a, change.b)
        and loss_of(change.what, change.a) != loss_of(change.what, change.b)
    ]
    return tuple(told)


def metric_of(a: Case, b: Case, *, other_tokens: bool = False) -> str | None:
    """The metric to judge both by: what both choose checkpoints by, else validation loss, else training loss."""
    chosen = [case.setting("checkpoint.metric") for case in (a, b)]
    names = [str(chosen[0])] if chosen[0] == chosen[1] and chosen[0] else []
    names = (["validation/bits_per_byte"] if other_tokens else []) + names + ["validation/loss", "train/loss"]
    return next((name for name in names if _series(a, name) is not None and _series(b, name) is not None), None)


def outcomes_of(a: Side, b: Side, metric: str, noise: tuple[float, str] | None) -> Iterator[Outcome]:
    """`noise`: what runs that are equal but for chance differ by, and where that is from; evaluations may scatter by
    more."""
    cases = (a.case, b.case)
    curves = [_series(case, metric) for case in cases]
    if curves[0] is None or curves[1] is None:
        return
    of_evaluations = SURE * math.hypot(*(noise_after_descent(curve.values) for curve in curves if curve))
    if of_evaluations > (noise[0] if noise is not None else 0.0):
        noise = of_evaluations, SCATTER
    yield _outcome(metric, "in the whole run", curves[0], curves[1], noise)
    if not metric.startswith("train/") and any(_best(metric, one)[1] != one.last_step for one in curves if one):
        at_end = [Curve(one.steps[-1:], one.values[-1:]) for one in curves if one]
        yield _outcome(metric, AT_END, at_end[0], at_end[1], noise)
    last = [curve.last_step for curve in curves if curve]
    seen: set[tuple[int, int]] = {(last[0], last[1])}
    for name, limits in _budgets(cases):
        ends = int(limits[0]), int(limits[1])
        parts = [curve.between(0, end) for curve, end in zip(curves, ends, strict=True) if curve]
        cut = tuple(part.last_step if part is not None else 0 for part in parts)
        if all(part is not None for part in parts) and cut not in seen:
            seen.add(cut)  # type: ignore[arg-type]
            yield _outcome(metric, f"within {name}", parts[0], parts[1], noise)  # type: ignore[arg-type]


def noise_after_descent(values: NDArray[np.float64]) -> float:
    """The noise of one value around its course in the second half; 0 where too little is left to tell. A steep descent
    bends, and its bends are no chance."""
    later = values[-max(FEWEST, (len(values) + 1) // 2) :]
    return noise_of_evaluations(later) if len(later) >= FEWEST and np.isfinite(later).all() else 0.0


def _outcome(metric: str, budget: str, a: Curve, b: Curve, noise: tuple[float, str] | None) -> Outcome:
    (value_a, step_a), (value_b, step_b) = (_best(metric, curve) for curve in (a, b))
    better: Which | None = "a" if (value_a < value_b) == (selection_direction(metric) == "lower") else "b"
    if value_a == value_b or (noise is not None and abs(value_a - value_b) <= noise[0]):
        better = None
    size, source = noise or (None, "")
    return Outcome(metric, budget, value_a, value_b, step_a, step_b, better, size, source)


def _best(metric: str, curve: Curve) -> tuple[float, int]:
    """The best value and its step; of a training loss the mean of its last twentieth."""
    if metric.startswith("train/"):
        few = max(3, len(curve) // 20)
        return float(curve.values[-few:].mean()), curve.last_step
    at = int(curve.values.argmin() if selection_direction(metric) == "lower" else curve.values.argmax())
    return float(curve.values[at]), int(curve.steps[at])


def _budgets(cases: tuple[Case, Case]) -> Iterator[tuple[str, tuple[float, float]]]:
    """What both can spend at most, and the step up to which each has spent it."""
    last = [case.history.last_step for case in cases]
    if min(last) < (1 - ALIKE) * max(last):
        yield f"{format.count(min(last))} steps", (min(last), min(last))
    for name, metric in (("tokens", "tokens"), ("seconds", "step_seconds")):
        spent = [_spent(case, metric) for case in cases]
        if spent[0] is None or spent[1] is None:
            continue
        limit = min(float(spent[0].values[-1]), float(spent[1].values[-1]))
        ends = [float(one.steps[np.searchsorted(one.values, limit, side="right") - 1]) for one in spent if one]
        told = f"{format.short(limit)} tokens" if name == "tokens" else f"{format.duration(limit)} of steps"
        if max(float(one.values[-1]) for one in spent if one) * (1 - ALIKE) > limit:
            yield told, (ends[0], ends[1])


def _spent(case: Case, metric: str) -> Curve | None:
    """The sum of a metric up to each step."""
    series = case.history.get(metric)
    return None if series is None or not len(series) else Curve(series.steps, np.cumsum(series.columns.total))


def _series(case: Case, metric: str) -> Curve | None:
    return Curve.of(
        case.history.get(metric) if "@" in metric or metric.startswith("train/") else case.evaluated(metric)
    )
