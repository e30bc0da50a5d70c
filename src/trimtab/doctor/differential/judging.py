"""What evaluations look like, and how far they are from training."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.differential.loss import FEWEST, smooth
from trimtab.doctor.differential.sums import Measured, ranks_agree, ratio, share, slope_in_errors
from trimtab.doctor.reading.classes import num_classes, usual_loss
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.evaluations import counted_answers, noise_of_evaluations, unchanged_since


def of_evaluations(case: Case) -> Iterator[Measured]:
    """The features of validation loss and accuracy."""
    judged, training = Curve.of(case.validation_loss()), Curve.of(case.loss())
    if judged is not None and len(judged) >= 2:
        yield from _of_loss(case, judged, training)
    accuracy = Curve.of(case.evaluated("validation/accuracy"))
    if accuracy is not None and len(accuracy) >= 2 and float(accuracy.values.max()) <= 1.0:
        yield from _of_accuracy(case, accuracy, judged, training)


def _of_loss(case: Case, judged: Curve, training: Curve | None) -> Iterator[Measured]:
    values = judged.values
    num, best = len(values), int(values.argmin())
    lowest, noise = float(values[best]), noise_of_evaluations(values)
    first, last = float(values[0]), float(np.median(values[-2:])) if best < num - 1 else lowest
    descent = max(first - lowest, 0.0)
    yield "validation_fall", ratio(first, lowest)
    yield "validation_best_at", best / max(1, num - 1)
    yield "validation_rise", ratio(last, lowest)
    yield "validation_rise_in_noise", share(last - lowest, noise)
    yield "validation_rise_of_descent", share(last - lowest, max(descent, 1e-3 * abs(lowest)))
    yield "validation_noise", ratio(noise, abs(lowest)) if noise else None
    yield "validation_noise_of_descent", ratio(noise, descent) if noise else None
    yield "validation_stands", float(unchanged_since(case) is not None)
    yield "validation_end_slope", slope_in_errors(values[-max(4, num // 3) :])
    yield "validation_worst", ratio(float(values.max()), first)
    if training is None or len(training) < FEWEST:
        return
    smoothed = smooth(training.values)
    # Of the rows up to an evaluation, as many as two thirds of the way back to the one before.
    beside = np.interp(judged.steps, training.steps, smoothed)
    yield "gap_first", ratio(first, float(beside[0]))
    yield "gap_best", ratio(lowest, float(beside[best]))
    yield "gap_last", ratio(last, float(np.median(beside[-2:])))
    gap = values - beside
    covered = max(float(smoothed[0] - smoothed.min()), 1e-12)
    yield "gap_of_descent", share(float(np.median(gap[-2:])), covered)
    yield "gap_growth", share(float(np.median(gap[-2:]) - gap[0]), covered)
    yield "gap_slope", slope_in_errors(gap)
    yield "gap_since_best", share(float(beside[best] - np.median(beside[-2:])), covered)
    yield "validation_follows", ranks_agree(values, beside)
    yield "validation_against_start", ratio(lowest, float(training.start))


def _of_accuracy(case: Case, accuracy: Curve, judged: Curve | None, training: Curve | None) -> Iterator[Measured]:
    values = accuracy.values
    best, last = float(values.max()), float(np.median(values[-2:]))
    noise = noise_of_evaluations(values)
    yield "accuracy_gain", best - float(values[0])
    yield "accuracy_gain_in_noise", share(best - float(values[0]), noise)
    yield "accuracy_loss", best - last
    yield "accuracy_noise", noise
    yield "accuracy_kinds", len(np.unique(values)) / len(values)
    yield "accuracy_same", float((values == values[-1]).mean())
    answers = counted_answers(case)
    yield "accuracy_answers", ratio(answers, 1.0) if answers is not None else None
    number = num_classes(case)
    if number is not None:
        yield "accuracy_of_chance", ratio(max(last, 1e-3), 1.0 / number)
    if judged is not None:
        common = np.interp(judged.steps, accuracy.steps, values)
        turn = int(judged.values.argmin())
        yield "accuracy_since_best", float(np.median(common[-2:]) - common[turn])
        usual = usual_loss(last, number if number is not None else 2.0)
        reached = float(np.median(judged.values[-2:]))
        yield "validation_of_usual", ratio(reached, max(usual, 1e-2))
        if number is not None:  # of the least that a softmax of probabilities can cost at this accuracy
            yield "validation_of_two_softmax", reached / (math.log(math.e + number - 1.0) - last)
        if training is not None:
            yield "loss_of_usual", ratio(training.end, max(usual, 1e-2))
    taught = Curve.of(case.history.get("train/accuracy"))
    if taught is not None:
        yield "accuracy_gap", taught.end - last
