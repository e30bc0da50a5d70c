"""What the first loss of a run says beside what guessing costs, as far as a log tells among how many."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.reading.beginnings import LARGEST_VOCABULARY, starts_steep
from trimtab.doctor.reading.classes import usual_loss
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.medians import median

MORE: Final = 1.0
"""Nats."""
TIMES: Final = 1.2
WAY: Final = 0.2
"""Of the run, within which the loss must have come down."""
MOST_RIGHT, FEW = 0.5, 2.7
"""An accuracy up to which the loss tells among how many others the wrong answers are, and how many are few: so many
times as many as guesses would be right among; of texts of bytes they are four times as many."""


def most_classes(case: Case) -> float:
    """How many there are at most: where wrong answers, while most are wrong, are shared by few others, a tenth of all
    is a generous guess. Later it is not: of texts few others come into question in the end, and of bytes at last."""
    if not starts_steep(case):
        return LARGEST_VOCABULARY  # first updates at far too high a rate lift a first loss that is a mean of some steps
    for told, of in (
        (case.evaluated("validation/accuracy"), case.validation_loss()),
        (case.history.get("train/accuracy"), case.loss()),
    ):
        accuracy, loss = Curve.of(told), Curve.of(of)
        if accuracy is None or loss is None or len(accuracy) < 5 or float(accuracy.values.max()) > 1.0:
            continue
        mostly_wrong = np.flatnonzero((accuracy.smoothed > 0.2) & (accuracy.smoothed <= MOST_RIGHT))
        if not len(mostly_wrong):
            continue
        last = int(mostly_wrong[-1])
        right, cost = float(accuracy.smoothed[last]), loss.at(int(accuracy.steps[last]))
        others = math.exp(min((cost - usual_loss(right, 2.0)) / (1.0 - right), 50.0))
        if others * right < FEW:
            return 10.0 * (1.0 + others)
    return LARGEST_VOCABULARY


def is_summed(case: Case, curve: Curve) -> bool:
    """Whether the training loss is a multiple of the validation loss at the first evaluations."""
    validation = Curve.of(case.validation_loss())
    if validation is None:
        return False
    ratios = [
        curve.level(step - max(4, step // 4), step) / value
        for step, value in zip(validation.steps[:3].tolist(), validation.values[:3].tolist(), strict=True)
        if value > 0
    ]
    ratios = [ratio for ratio in ratios if np.isfinite(ratio)]  # none where evaluations come before the first loss
    return bool(ratios) and median(np.array(ratios)) > 1.6


def comes_down(case: Case, curve: Curve, uniform: float) -> bool:
    """Whether it is near what guessing costs soon: a loss that is summed is not."""
    until = curve.first_step + WAY * max(case.planned_steps - curve.first_step, 1)
    early = curve.between(curve.first_step, until)
    first = float(curve.values[0])
    if early is None or len(early) < 4:
        return False
    lowest = float(early.smoothed.min())
    return lowest < uniform + 0.5 * (first - uniform) and lowest < max(
        1.1 * uniform, uniform + 0.25 * (first - uniform)
    )


def is_as_high_judged(case: Case, curve: Curve, uniform: float) -> bool:
    """Whether our own first evaluation, which sums nothing, is as far above as training is there."""
    validation = Curve.of(case.validation_loss())
    if case.target != "trimtab" or validation is None:
        return False
    first = float(validation.values[0])
    return first > TIMES * uniform + MORE and 0.5 < curve.at(validation.first_step) / first < 1.8
