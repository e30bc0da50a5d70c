"""For how many steps the schedule of another trainer was laid out, as its rates tell, and whether the run is over."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.reading.curves import Curve, resolution
from trimtab.doctor.reading.medians import median

FEWEST: Final = 12
"""Rates: a cosine or a line is drawn by few of them."""
FAST, SLOW, APART = 12.0, 1 / 16, 0.005
"""Half waves in a run, at most, at least, and between two that are tried."""
OF_FALL: Final = 0.1
"""Of all that the rate fell, that a cosine may be off."""
FLOORS: Final = (0.0, 0.02, 0.05, 0.1)
"""Of the peak, that a cosine usually ends at."""
DOWN: Final = 0.06
"""Of the peak: a cosine that ends below has come down, or nearly."""
RISEN: Final = 0.02
"""Of the peak: a rate that comes up so far from its lowest was not down at the end of a run."""
STAIRS, EVEN = 4, 0.05
"""The fewest of a warm-up, and of their height how far each may be off."""
STAYS: Final = 0.9
"""Of the top, that a rate which stays does not fall below."""


class Fall(NamedTuple):
    """Where the rate leaves its peak and where it would be down, in steps."""

    begin: float
    end: float
    last: float
    """The last rate, of the peak."""
    since: int
    """The first step that was held against it."""


class Stairs(NamedTuple):
    """Where even stairs come to their top, how many there are, and their height, of the top."""

    end: int
    number: int
    height: float


def is_done(case: Case) -> bool:
    """Whether a log is that of a whole run: its planned steps are done, or it closes with an evaluation of its own that
    is the best of all, as no run does that was stopped or died."""
    planned, validation = case.number("planned_steps"), Curve.of(case.validation_loss())
    if planned is not None:
        return case.history.last_step >= planned
    if validation is None or len(validation) < 5 or validation.last_step < case.history.last_step:
        return False
    gaps = np.diff(validation.steps)
    lowest = float(validation.values.min())
    is_best = float(validation.values[-1]) <= lowest + 0.02 * float(validation.values.max() - lowest)
    return is_best and int(gaps[-1]) < int(median(gaps))


def half_cosine(rates: Curve) -> Fall | None:
    """The half wave that the rates follow from their peak on; None where they follow none, or are down in the end."""
    early = rates.values[: max(2, len(rates) // 2)]  # one that rises again may come back to its peak
    peak = float(early.max())
    fall = rates.between(int(rates.steps[int(np.argmax(early))]), rates.last_step)
    if fall is None or len(fall) < FEWEST // 2 + 2 or peak <= 0:
        return None
    last = float(fall.values[-1])
    if last < DOWN * peak and last - float(fall.values.min()) < RISEN * peak:
        return None
    fitted = _waves(fall, peak)
    if fitted is None or (fitted[1] > fall.last_step - fitted[0] and len(fall) < FEWEST):
        return None
    begin, length = fitted
    return Fall(begin, begin + length, last / peak, int(begin))


def _waves(fall: Curve, peak: float) -> tuple[float, float] | None:
    """Where the half wave of a cosine began that the rates follow from their peak on, and its length."""
    if float(fall.values.min()) >= peak * (1.0 - 1e-3):
        return None
    few = np.unique(np.linspace(0, len(fall) - 1, 96).astype(int))  # of a smooth curve
    between = int(median(np.diff(fall.steps)))  # of a log of some steps only the top may lie between two values
    steps, values = fall.steps[few], fall.values[few] / peak
    allowed = min(0.01, OF_FALL * (1.0 - float(values.min())))
    best: tuple[float, float, float] | None = None
    offsets = np.linspace(-(between // 2), between - 1, 24 if len(few) < 48 else 6)
    for begin in fall.first_step - np.unique(offsets.astype(int)):
        halves = np.concatenate([np.geomspace(SLOW, 0.3, 200), np.arange(0.3, min(FAST, len(few)), APART)])
        waves = 0.5 * (1 + np.cos(np.pi * np.outer(halves, (steps - begin) / max(fall.last_step - begin, 1))))
        for floor in FLOORS:
            errors = np.abs(floor + (1 - floor) * waves - values).max(axis=1)
            at = int(np.argmin(errors))
            one = float(errors[at]), float(begin), float((fall.last_step - begin) / halves[at])
            best = min(best or one, one)
    assert best is not None
    return best[1:] if best[0] <= allowed else None


def straight(rates: Curve) -> Fall | None:
    """The line that the rates fall along from the first quarter of the run on."""
    whole, peak = rates.last_step - rates.first_step, float(rates.values.max())
    late = rates.between(rates.first_step + 0.4 * whole, rates.last_step)
    if late is None or len(late) < FEWEST // 2 + 1 or peak <= 0:
        return None
    slope, height = np.polyfit(late.steps, late.values, 1)
    if slope >= 0 or np.abs(height + slope * late.steps - late.values).max() > 2e-3 * peak:
        return None
    top = float((peak - height) / slope)  # where the line leaves the peak
    if top > rates.first_step + 0.25 * whole:
        return None
    return Fall(top, float(-height / slope), float(late.values[-1]) / peak, late.first_step)


def even_stairs(rates: Curve) -> Stairs | None:
    """The stairs of one height that the rates go up to their top."""
    peak = float(rates.values.max())
    top = int(np.argmax(rates.values >= (1 - 1e-3) * peak))
    rise = rates.values[: top + 1] / max(peak, 1e-300)
    levels = np.unique(np.round(rise, 3))
    if len(levels) < STAIRS or (np.diff(rise) < -1e-3).any() or len(levels) > 0.7 * len(rise):
        return None
    heights = np.diff(levels)
    if heights.mean() * peak < 1.5 * resolution(rates.values):
        return None  # of the last digit that was printed
    if heights.min() < (1 - EVEN) * heights.max() - 2e-3:
        return None
    return Stairs(int(rates.steps[top]), len(levels), float(heights.mean()))


def warms_up_until(rates: Curve) -> int | None:
    """The step to which the rates rise, where they stay from there on."""
    peak = float(rates.values.max())
    top = int(np.argmax(rates.values >= (1 - 1e-3) * peak))
    rises = peak > 0 and top >= STAIRS and bool((np.diff(rates.values[: top + 1]) > 0).all())
    return int(rates.steps[top]) if rises and float(rates.values[top:].min()) >= STAYS * peak else None
