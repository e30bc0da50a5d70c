"""What the training loss looks like, in numbers that no unit and no length of the log changes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.differential.sums import Measured, autocorrelation, ratio, share, slope_in_errors
from trimtab.doctor.reading.curves import Curve, Floats, noise_of, running_median
from trimtab.doctor.reading.medians import median
from trimtab.runs.history import Series

FEWEST: Final = 5
"""Rows that have a shape."""


def smooth(values: Floats) -> Floats:
    """Running median of a width that logs of ten rows bear, too."""
    return (
        values if len(values) < 12 else running_median(values, 3 if len(values) < 40 else (len(values) // 50) * 2 + 3)
    )


def of_loss(case: Case) -> Iterator[Measured]:
    """The features of the training loss."""
    series = case.loss()
    if series is None:
        return
    yield from _not_finite(series)
    curve = Curve.of(series)
    if curve is None or len(curve) < FEWEST:
        return
    values, smoothed = curve.values, smooth(curve.values)
    num, noise = len(values), noise_of(values)
    start, end, lowest = float(smoothed[: max(1, num // 100)].mean()), curve.end, float(smoothed.min())
    descent, fall = max(start - lowest, 1e-12), start - end
    yield "loss_fall", ratio(start, end)
    yield "loss_fall_in_noise", share(fall, noise)
    yield "loss_noise_of_descent", ratio(noise, descent)
    yield "loss_noise_of_level", ratio(noise, abs(median(values)))
    third = max(3, num // 3)
    yield "loss_noise_growth", ratio(noise_of(values[-third:]), noise_of(values[:third])) if num >= 9 else None
    if descent > 2.0 * noise:
        for percent in (2, 10, 50):
            reached = (start - float(smoothed[min(num - 1, round(num * percent / 100))])) / descent
            yield f"loss_descent_{percent}", min(max(reached, -2.0), 1.0)
        yield "loss_done", float(np.flatnonzero(smoothed <= lowest + 0.05 * descent)[0]) / num
        yield "loss_last_quarter", (float(smoothed[int(0.75 * num)]) - end) / descent
        if fall > 2.0 * noise:
            yield "loss_bend", (start + end - 2.0 * float(smoothed[num // 2])) / fall
    yield "loss_end_slope", slope_in_errors(values[-max(4, num // 3) :])
    yield "loss_slope", slope_in_errors(values)
    yield "loss_end_rise", share(end - lowest, max(descent, 3.0 * noise))
    yield "loss_hump", share(float(smoothed[: max(3, num // 5)].max()) - start, max(descent, 3.0 * noise))
    yield "loss_above_start", float((smoothed > start + noise).mean())
    yield from _excursion(values, smoothed, noise, descent)
    yield from _residuals(values, noise)


def _not_finite(series: Series) -> Iterator[Measured]:
    """How many values are no numbers, since when, and whether it ends so."""
    bad = series.num_bad
    yield "loss_bad_share", bad / series.num_samples if series.num_samples else None
    if bad:
        where = np.flatnonzero(series.bad)
        yield "loss_bad_since", float(where[0]) / len(series)
        yield "loss_ends_bad", float(series.bad[-1] > 0)


def _excursion(values: Floats, smoothed: Floats, noise: float, descent: float) -> Iterator[Measured]:
    """The largest rise above what was reached before: how high, where, and how much of it is lost again."""
    before = np.minimum.accumulate(smoothed)[:-1]
    above = values[1:] - before
    where = int(above.argmax())
    height = float(above[where])
    yield "loss_jump_in_noise", share(height, noise)
    yield "loss_jump", share(height, max(descent, 3.0 * noise))
    if height > 6.0 * noise and height > 0.1 * descent:
        after = float(np.median(values[-max(3, len(values) // 20) :]))
        yield "loss_jump_where", (where + 1) / len(values)
        yield "loss_jump_back", min(max(1.0 - (after - float(before[where])) / height, -1.0), 2.0)
        yield "loss_jump_rows", ratio(float((above > 0.5 * height).sum()), float(len(values)))


def _residuals(values: Floats, noise: float) -> Iterator[Measured]:
    """What is left around a wide running median: tails, memory, periods."""
    num = len(values)
    if num < 16 or noise <= 0.0:
        return
    left = values - running_median(values, max(5, num // 8) | 1)
    spread = float(np.quantile(np.abs(left), 0.5)) or noise
    yield "loss_tail", ratio(float(np.quantile(np.abs(left), 0.99)), spread)
    yield "loss_tail_side", ratio(float(left.max()), -float(left.min()))
    yield "loss_spikes", float((left > 8.0 * spread).mean())
    left = np.clip(left, -5.0 * spread, 5.0 * spread)
    memory = autocorrelation(left, num // 3)
    yield "loss_memory", float(memory[1])
    yield "loss_wave", math.sqrt(num) * float(memory[1])
    if len(memory) > 5:
        lows = np.minimum.accumulate(memory[1:-1])
        rises = memory[2:] - lows
        yield "loss_period", float(np.where(memory[2:] > 0, rises, 0.0).max())
