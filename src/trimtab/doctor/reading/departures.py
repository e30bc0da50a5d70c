"""Where a loss left for good, and how far: in training, in evaluations, or before it was no number any more."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.reading.curves import Curve, Floats, resolution
from trimtab.doctor.reading.medians import median
from trimtab.doctor.reading.objectives import BLOWN, moved_by

PART_OF_DESCENT: Final = 0.2
NOISES: Final = 8.0
FAR: Final = 2.0
"""Times the first, of a validation loss that has left."""
ROSE: Final = 1.2
"""Times its lowest, of a loss that was on its way up before it was no number."""
NEARLY: Final = 0.9
"""Of a rise that is still being made good."""
REGAINED: Final = 0.7
"""Of a rise: a spike that the rest of the run was too short to make good."""
NOTHING, NEAR_NOTHING = 0.1, 0.1
"""A loss that begins so low, at such a part of where it ends, had nothing to predict yet."""
MOST: Final = 0.85
"""The same, of one that was far above where the run began."""
GAINED, OF_RISE, HUGE = 0.5, 0.7, 5.0
"""Of the loss at the start and of the rise, where less had been gained; and times the first losses, where more is no
level of any game."""
PLAYS, SWIFT = 20.0, 0.12
"""Times the noise of a step, and part of the run: what is played against another network is lost by less, or takes
longer."""
STANDS: Final = 0.3
"""Part of the run, of which a loss stands half above its start: however high it was thrown, it is not on its way."""
LASTS: Final = 0.12
"""Part of the run for which a low rise must have lasted: a loss that swings is unsteady, and has not left."""


class Departure(NamedTuple):
    """A loss that left: the step of its lowest, the last one near it, both levels, and the last step that is known."""

    lowest_step: int
    onset: int
    lowest: float
    end: float
    last: int


def left(case: Case, curve: Curve) -> Departure | None:
    """Where the level of a training loss left; None where it did not, came back, or was to rise."""
    risen = curve.end - curve.floor
    error = curve.error(max(3, len(curve) // 20))
    needed = max(
        PART_OF_DESCENT * curve.descent,
        NOISES * error,
        2.0 * curve.noise,
        0.02 * abs(curve.floor) if curve.descent > 0.1 * abs(curve.start) else 0.1 * abs(curve.start),
    )
    if risen < needed:
        return None
    floor_at = int(np.argmin(curve.smoothed))
    if floor_at >= len(curve) - 3 or _by_design(case, curve) or _is_best_judged(case, curve):
        return None
    onset_at = _left_at(curve, floor_at, curve.floor + max(0.03 * risen, 2.5 * curve.error(curve.width)))
    after = curve.values[onset_at:]
    lasts = len(after) >= LASTS * len(curve) or risen > 0.6 * curve.descent
    if len(after) < 5 or not lasts or _comes_back(curve, onset_at, risen):
        return None
    lowest_step, onset = int(curve.steps[floor_at]), int(curve.steps[onset_at])
    return Departure(lowest_step, onset, curve.floor, curve.end, curve.last_step)


def left_in_evaluations(curve: Curve, validation: Curve) -> Departure | None:
    """Where a validation loss left that ends far above where it began, beside a training loss that does so on average:
    where answers become huge most batches may be right for good and cost nothing, and some cost all."""
    if len(validation) < 4:
        return None
    lowest_at, begun = int(np.argmin(validation.values)), begun_at(curve, validation)
    end, mean = float(validation.values[-1]), float(latest(curve).values.mean())
    if not begun > 0.0 or end < FAR * begun or mean < begun or len(validation) - lowest_at < 4:
        return None
    lowest = float(validation.values[lowest_at])
    onset_at = int(np.flatnonzero(validation.values <= lowest + 0.05 * (begun - lowest))[-1])
    steps = validation.steps
    return Departure(int(steps[lowest_at]), int(steps[onset_at]), lowest, end, validation.last_step)


def begun_at(curve: Curve, validation: Curve) -> float:
    """The higher of what training and evaluation began with."""
    return max(curve.start, float(validation.values[0]))


def latest(curve: Curve) -> Curve:
    """The last fifth of a curve, of five values at least."""
    num = max(5, len(curve) // 5)
    return Curve(curve.steps[-num:], curve.values[-num:])


def broke_off(curve: Curve, bad: int) -> Departure | None:
    """Where a loss left that was on its way up, value by value, until it was no number at step `bad`."""
    before = curve.between(curve.first_step, bad - 1)
    if before is None or len(before) < 2:
        return None
    lowest_at = int(np.argmin(before.values))
    lowest, last = float(before.values[lowest_at]), float(before.values[-1])
    rises = before.values[lowest_at:]
    steady = len(rises) >= 2 and bool((np.diff(rises[-3:]) > 0).all())
    noise = before.noise if len(before) >= 6 else 0.0
    if not steady or last < ROSE * abs(lowest) or last < before.start or last - lowest < NOISES * noise:
        return None
    # The lowest may be any of many that are as low: it left after the last of these.
    level = lowest + max(0.03 * min(last - lowest, abs(lowest)), 2.5 * noise)
    onset_at = int(np.flatnonzero(before.values <= level)[-1])
    lowest_step, onset, near = int(before.steps[lowest_at]), int(before.steps[onset_at]), float(before.values[onset_at])
    return Departure(lowest_step, onset, near, last, before.last_step)


def _is_best_judged(case: Case, curve: Curve) -> bool:
    """Whether the last of several evaluations, on fixed samples of both sets and at the end of training, is the best:
    then what the last batches cost is of these batches."""
    judged = [Curve.of(case.validation_loss()), Curve.of(case.evaluated("training_slice/loss"))]
    return all(
        one is not None
        and len(one) >= 4
        and one.last_step >= curve.last_step
        and int(np.argmin(one.values)) == len(one) - 1
        for one in judged
    )


def _by_design(case: Case, curve: Curve) -> bool:
    """Whether it may rise as it is learned: it begins near nothing and was never clearly lower, as a Q function's does,
    a critic's or a policy's, whose start is no level that a model has gained and can lose; or it moves by itself."""
    if moved_by(case) is not None:
        first = float(np.abs(curve.values[: max(8, len(curve) // 4)]).max())
        return curve.end < BLOWN * max(first, 1.0)
    gained = curve.descent >= max(0.1 * (curve.end - curve.start), curve.noise)
    near_nothing = curve.start <= max(resolution(curve.values), min(NOTHING, NEAR_NOTHING * curve.end))
    return near_nothing and not gained and case.validation_loss() is None


def is_level_of_its_own(case: Case, curve: Curve) -> bool:
    """Whether no evaluation tells that something was lost, less than half had been gained, and it has not blown up nor
    risen at once by far more than steps scatter: so rises what is played against another network."""
    risen, highest = curve.end - curve.floor, float(np.abs(curve.values[:3]).max())
    return (
        case.validation_loss() is None
        and curve.descent < min(GAINED * abs(curve.start), OF_RISE * risen)
        and float(curve.values.max()) < HUGE * highest
        and not (risen > PLAYS * curve.noise and is_swift(curve))
    )


def is_swift(curve: Curve) -> bool:
    """Whether most of a rise from the floor, from a fifth to four fifths of it, took a small part of the run."""
    after = curve.smoothed[int(np.argmin(curve.smoothed)) :]
    begin, end = (curve.floor + part * (curve.end - curve.floor) for part in (0.2, 0.8))
    return int(np.argmax(after >= end)) - int(np.flatnonzero(after <= begin)[-1]) <= SWIFT * len(curve)


def _left_at(curve: Curve, floor_at: int, threshold: float) -> int:
    """Index of the last value on the way up that was still below `threshold`, smoothed."""
    below = np.flatnonzero(curve.smoothed[floor_at:] <= threshold)
    return floor_at + int(below[-1])


def _stands_above(curve: Curve, after: Floats) -> bool:
    """Whether all that had been gained is lost, and the loss falls by less than that from there to the end."""
    late = after[len(after) // 2 :]
    if len(after) < STANDS * len(curve) or float(late.min()) < curve.start:
        return False
    before, then = map(median, np.array_split(late, 2))
    return before - then < curve.start - curve.floor


def _comes_back(curve: Curve, onset_at: int, risen: float) -> bool:
    """Whether it was near its floor again after it had left, or is on its way: it swings, or a spike is not over."""
    after = curve.smoothed[onset_at:]
    away = np.flatnonzero(after >= curve.floor + 0.5 * risen)
    if len(away) and float(after[away[0] :].min()) < curve.floor + 0.35 * risen:
        return True
    if _stands_above(curve, after):
        return False
    highest = float(curve.values[onset_at:].max())
    since = after[int(np.argmax(after)) :]
    late = curve.values[-max(4, len(since) // 2) :]
    if (
        len(since) >= 8
        and highest - curve.end > NEARLY * (highest - curve.floor)
        and curve.error(len(late) // 2) * 3.0 < float(median(late[: len(late) // 2]) - median(late[len(late) // 2 :]))
    ):
        return True  # nearly all is made good, and the rest goes on to be
    if (
        highest - curve.end > REGAINED * (highest - curve.floor)
        and (
            curve.end < curve.floor + 0.5 * curve.descent
            or (curve.end < curve.start and highest - curve.end > MOST * (highest - curve.floor))
        )
        and len(since) >= 8
        and median(since[len(since) // 2 :]) < median(since[: len(since) // 2])
    ):
        return True
    peak = float(after.max())
    return peak - curve.end > max(0.5 * (peak - curve.floor), 3 * curve.noise) and peak - curve.floor < 3 * risen
