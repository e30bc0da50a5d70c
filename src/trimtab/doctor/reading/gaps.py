"""The gap between validation and training loss: how wide it was before samples came again, and whether it stays."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.evaluations import noise_of_evaluations
from trimtab.doctor.reading.medians import median

HALF: Final = 0.6
"""Of a pass over the data: up to there most training samples were seen at most once."""
FALLS_WITH: Final = 0.25
"""Of what the training loss fell by: a validation loss that falls by as much profits from what is learned."""


def is_one_pass(case: Case) -> bool:
    """Whether no sample was seen twice in the whole run, as far as is known."""
    return 0.0 < case.epochs() <= 1.0


def has_turned(validation: Curve) -> bool:
    """Whether each evaluation of the last third lies above the three around the best of all."""
    best_at, late = int(np.argmin(validation.values)), validation.steps > 2 * validation.last_step / 3
    around = median(validation.values[max(0, best_at - 1) : best_at + 2])
    return bool((validation.values[late] > around).all())


def chance_of(training: Curve) -> float:
    """What the training loss, as it is smoothed, is off by."""
    return 2.0 * (training.error(training.width) if len(training) > 20 else training.noise)


def early_gaps(
    case: Case, validation: Curve, training: Curve, *, at_end: bool = False
) -> tuple[float, float, tuple[int, int], bool, float] | None:
    """The median gap of the evaluations within the first pass over the data, or of the first few; the loss there, where
    they are, whether they are within the first pass, and the widest gap. `at_end`: those of the last third instead, of
    a run that is one pass."""
    epochs = case.epochs()
    last = case.history.last_step
    per_step = epochs / last if last else 0.0
    until = HALF / per_step if per_step > 0 else math.inf
    new = per_step > 0
    taken = validation.steps <= min(until, last)
    if at_end:
        taken = validation.steps > 2 * last / 3
    if not new or taken.sum() < 2:
        taken, new = np.arange(len(validation)) < max(2, len(validation) // 5), False
    # Before a model has learned anything it is as good on whatever it is asked.
    at = validation.steps[taken]
    values = validation.values[taken]
    beside = training.along(at) if len(training) > 20 else np.interp(at, training.steps, training.values)
    seen = Curve.of(case.loss())
    begin = training.start if seen is None else max(training.start, seen.start)  # a slice is judged later than that
    started = beside < begin - 0.1 * max(begin - training.floor, 0.0)
    if not started.any():
        return None
    if new and seen is not None:  # the loss of samples just before they are learned is that of new ones
        beside = np.maximum(beside, seen.along(at))
    gaps = (values - beside)[started]
    steps = (int(at[started][0]), int(at[started][-1]))
    widest = float(gaps[int(np.abs(gaps).argmax())])
    return median(gaps), median(beside[started]), steps, new, widest


def stays(validation: Curve, training: Curve, gap: float) -> bool:
    """Whether the gap is there in each evaluation of the second half, and far above how evaluations scatter."""
    beside = np.interp(validation.steps, training.steps, training.smoothed if len(training) > 20 else training.values)
    gaps = (validation.values - beside)[len(validation) // 2 :]
    return len(validation) >= 5 and float(gaps.min()) > 0.6 * gap > 2.0 * noise_of_evaluations(validation.values)


def falls_with(validation: Curve, training: Curve) -> bool:
    """Whether the validation loss falls by a good part of what the training loss falls by, each of its own level, and
    does so to the end."""
    if validation.end > median(validation.values):
        return False
    beside = float(np.interp(validation.first_step, training.steps, training.smoothed))
    first = float(validation.values[0])
    if beside <= 0 or first <= 0:
        return validation.end < first
    return 1.0 - validation.end / first > max(FALLS_WITH * (1.0 - training.end / beside), 0.0)


def steady(validation: Curve, training: Curve, gap: float) -> bool:
    """Whether the gap was there from the beginning and hardly grew, and the validation loss does not turn up."""
    beside = np.interp(validation.steps, training.steps, training.smoothed if len(training) > 20 else training.values)
    gaps = validation.values - beside
    last = float(gaps[-max(1, len(gaps) // 5) :].mean())
    turned = float(validation.values[-1]) > 1.02 * float(validation.values.min())
    quiet = noise_of_evaluations(validation.values) < 0.3 * gap
    return len(validation) >= 5 and not turned and quiet and 0.6 < last / gap < 1.5
