"""Losses that all evaluations show to leave and come back, where single steps scatter too much to tell.

The validation set and the slice of the training set have no samples in common: what lifts both by as much, in the same
evaluation, is in the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.evaluations import noise_of_evaluations
from trimtab.doctor.reading.planned import planned_factor
from trimtab.doctor.reading.restarts import by_plan
from trimtab.doctor.reading.spikes import Spike, width_before

ONE_AND_A_HALF: Final = 1.5
"""Answers: between one and two."""
FEWEST: Final = 5
HIGH: Final = 0.18
"""Of the descent up to there; and it is three times as high as any other rise of either."""
ALIKE: Final = 0.6
"""The smaller of both rises over the larger."""
BACK: Final = 0.35
"""Of the rise, that is left after one or two evaluations more."""
FEW, PART = 3, 0.2
"""Values of a rise that an evaluation may fall into; and how much of a rise is one."""
NEAR: Final = 8
"""Steps before and after which the training loss is compared, to find where it begins."""


FEWEST_ALONE: Final = 8
HIGH_ALONE, NOISES, ERRORS = 0.1, 10.0, 2.0
"""Of a log without such a slice: part of the descent and times the noise of evaluations that one must rise by, and
standard errors that the training loss rises by beside it."""


@final
@dataclass(frozen=True, slots=True)
class Bump:
    """One rise that came back."""

    onset: int
    """The step at which the training loss rises most, between the two evaluations."""
    last: int
    """The evaluation that is back."""
    height: float
    usual: float


def bump_in_evaluations(case: Case) -> Bump | None:
    """The only rise of validation and training slice together; None where there is none, several, or one by plan."""
    validation, sliced = Curve.of(case.validation_loss()), Curve.of(case.evaluated("training_slice/loss"))
    curve = Curve.of(case.loss())
    if validation is None or sliced is None or curve is None or len(validation) != len(sliced):
        return None
    if len(validation) < FEWEST or (validation.steps != sliced.steps).any():
        return None
    rises_2N = np.diff(np.stack([validation.values, sliced.values]), axis=1)
    at = int(np.argmax(rises_2N.min(axis=0)))
    height, larger = float(rises_2N[:, at].min()), float(rises_2N[:, at].max())
    others = np.delete(rises_2N, at, axis=1)
    usual = float(validation.values[at])
    descent = max(curve.start, float(validation.values[0])) - usual
    least = max(HIGH * descent, 3.0 * float(others.max(initial=0.0)), 0.02 * abs(usual))
    if height <= least or height < ALIKE * larger:
        return None
    back = np.flatnonzero(validation.values[at + 2 : at + 4] <= usual + BACK * height)
    if not len(back) or descent <= 0:
        return None
    begin, end = int(validation.steps[at]), int(validation.steps[at + 1])
    if _is_one_step(case, end):
        return None
    factor = planned_factor(case)
    if factor is not None and factor(end) > 1.25 * factor(begin):
        return None  # the rate rises, as planned
    return Bump(_steepest(curve, begin, end), int(validation.steps[at + 2 + int(back[0])]), height, usual)


def bump_beside_training(case: Case) -> Bump | None:
    """The only rise of the validation loss in another trainer's log, where the training loss rose with it, both came
    back, and no schedule began anew."""
    validation, curve = Curve.of(case.validation_loss()), Curve.of(case.loss())
    if validation is None or curve is None or len(validation) < FEWEST_ALONE or case.target == "trimtab":
        return None
    rises, values = np.diff(validation.values), validation.values
    at = int(np.argmax(rises))
    height, usual, others = float(rises[at]), float(values[at]), np.delete(rises, at)
    descent = max(curve.start, float(values[0])) - usual
    least = max(HIGH_ALONE * descent, 3.0 * float(others.max(initial=0.0)), 0.02 * abs(usual))
    if descent <= 0 or height <= max(least, NOISES * noise_of_evaluations(values)):
        return None
    back = np.flatnonzero(values[at + 2 : at + 4] <= usual + BACK * height)
    if not len(back):
        return None
    begin, last = int(validation.steps[at]), int(validation.steps[at + 2 + int(back[0])])
    there = np.flatnonzero((curve.steps > begin) & (curve.steps <= last))
    before = curve.values[max(0, int(there[0]) - len(there)) : int(there[0])] if len(there) else there
    if len(before) < FEW:
        return None
    error = curve.noise * float(np.sqrt(1 / len(there) + 1 / len(before)))
    risen = float(curve.values[there].mean() - before.mean())
    spike = Spike(int(there[0]), int(there[-1]), height, usual, int(there[0]), curve)
    if risen < ERRORS * error or _is_one_step(case, int(validation.steps[at + 1])) or by_plan(case, curve, [spike]):
        return None
    return Bump(int(curve.steps[there[0]]), last, height, usual)


def not_in_evaluations(case: Case, curve: Curve, spikes: Sequence[Spike]) -> bool:
    """Whether evaluations fell into all the longer rises of the training loss, and the validation loss did not follow:
    the weights were not hurt, and something else was asked of them."""
    validation = Curve.of(case.validation_loss())
    longer = [spike for spike in spikes if spike.last - spike.first >= FEW]
    if validation is None or not longer:
        return False
    for spike in longer:
        # What is evaluated at the step of a loss has its update already.
        first, last = int(curve.steps[spike.first - 1]), int(curve.steps[spike.last])
        before, there = validation.between(validation.first_step, first - 1), validation.between(first, last)
        if before is None or there is None:
            return False
        excess = np.interp(there.steps, curve.steps[spike.first :], curve.smoothed[spike.first :]) - spike.usual
        high = excess > PART * spike.height
        if not high.any() or (there.values - before.values[-1] > PART * excess)[high].any():
            return False
    return True


def _is_one_step(case: Case, step: int) -> bool:
    """Whether the evaluation met a single step that the next ones made good: a gradient that is large there alone."""
    norms = Curve.of(case.history.get("grad_norm"))
    if norms is None:
        return False
    there, after = norms.between(step, step + 1), norms.between(step + 3, step + 10)
    if there is None or after is None:
        return False
    usual = norms.median
    return float(there.values.max()) > 5.0 * usual and after.median < 2.0 * usual


def _steepest(curve: Curve, begin: int, end: int) -> int:
    """The step between two at which the mean of the next losses lies most above that of the last."""
    first, last = (int(np.searchsorted(curve.steps, step, side="right")) for step in (begin, end))
    sums = np.concatenate([[0.0], np.cumsum(curve.values)])
    places = np.arange(max(first, 1), max(last, first + 1))
    places = places[places < len(curve)]
    if not len(places):
        return begin + 1
    low, high = np.maximum(places - NEAR, 0), np.minimum(places + NEAR, len(curve))
    gains = (sums[high] - sums[places]) / (high - places) - (sums[places] - sums[low]) / (places - low)
    return int(curve.steps[places[int(np.argmax(gains))]])


def of_one_answer(case: Case, curve: Curve, spike: Spike) -> bool:
    """Whether in each of its steps but one answer more than usual was wrong: that is hard, and no update did it."""
    rights, answers = Curve.of(case.history.get("train/accuracy")), Curve.of(case.history.get("tokens"))
    if rights is None or answers is None or len(rights) != len(curve) or len(answers) != len(curve):
        return False
    there = slice(spike.first, spike.last + 1)
    usual = rights.trailing_median(width_before(curve))[there]
    wrong = (usual - rights.values[there]) * answers.values[there]
    return bool((wrong < ONE_AND_A_HALF).all())
