"""A course of the loss that comes again: neighbouring steps go together, and so do steps an epoch apart."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.case import Case
from trimtab.doctor.reading.curves import Curve, running_median
from trimtab.doctor.reading.medians import median, quantile

FEWEST: Final = 60
LEAST: Final = 0.15
"""Correlation of a step with the one to four after it, less a trend: what is left of noise has none."""
SURE: Final = 2.8
"""Standard errors of that correlation."""
SIZE: Final = 0.02
"""Of the loss, or of all that was gained: a course that moves it by less is not worth telling."""
AGAIN: Final = 0.5
"""The same with the step an epoch later."""
AT_ONCE: Final = 0.5
"""Of the deviation from the trend: the farthest of its moves from one step to the next."""


class Course(NamedTuple):
    """From where on, every how many steps, by how much, and how alike it comes again."""

    begin: int
    steps: int
    size: float
    together: float


def course_of(case: Case, curve: Curve) -> Course | None:
    """The course that comes again, or None."""
    rates = Curve.of(case.history.get("learning_rate"))
    if len(curve) < FEWEST or case.counts_epochs:  # a mean of an epoch has nothing of its order
        return None
    begin = len(curve) // 8
    after = None if rates is None else rates.between(float(curve.steps[begin]), rates.last_step)
    if after is not None and (after.values[1:] > 1.3 * after.values[:-1]).sum() > 1:
        return None  # a rate that rises again and again; a warm-up is over by then
    values = curve.values[begin:]
    ends, medians, length = Curve(np.arange(len(values)), values).blocks(6)
    trend = np.interp(np.arange(len(values)), ends - length / 2, medians)
    rest = np.clip(values - trend, -8.0 * curve.noise - 1e-12, None)
    rest = rest - rest.mean()
    smooth = running_median(rest, 3)
    size = float(np.std(smooth))
    if size < SIZE * curve.descent:
        return None
    if size < SIZE * float(np.abs(trend).max()) and size < SIZE * abs(median(trend)):
        return None
    together = autocorrelation(rest, len(values) // 2)
    below = np.flatnonzero(together < 0.1)
    if not len(below):
        return None
    first = int(below[0])
    # The first of those that come near the highest: two epochs go together as one does.
    lag = first + int((together[first:] >= 0.9 * together[first:].max()).argmax())
    if lag < 8 or together[lag] < AGAIN or not _in_blocks(values, lag, curve.noise):
        return None
    if float(together[:lag].min()) > -LEAST:
        return None
    moves = np.diff(smooth)
    up, down = quantile(moves, 0.98), -quantile(moves, 0.02)
    # Stairs go down where texts come again. One kind follows another at once, and a swing of the weights is smooth.
    if up < 0.6 * down or max(up, down) < AT_ONCE * size:
        return None
    steps = round(lag * (curve.last_step - int(curve.steps[begin])) / max(1, len(values) - 1))
    return Course(int(curve.steps[begin]), steps, size, float(together[lag]))


def _in_blocks(values: NDArray[np.float64], lag: int, noise: float) -> bool:
    """Whether neighbours go together, less the mean of each `lag` values, which holds all of a trend and nothing of
    what comes again. In an order by chance that does as many values as an epoch has tell of that."""
    trend = np.convolve(values, np.ones(lag) / lag, "valid")
    begin = (lag - 1) // 2
    rest = np.clip(values[begin : begin + len(trend)] - trend, -8.0 * noise - 1e-12, None)
    together = autocorrelation(rest - rest.mean(), 5)
    sums = [(float(together[1 : num + 1].mean()), (lag * num) ** 0.5) for num in (1, 2, 4)]
    return any(mean >= max(LEAST, SURE / root) for mean, root in sums)


def autocorrelation(values: NDArray[np.float64], lags: int) -> NDArray[np.float64]:
    """Of `values`, whose mean is 0, at lags of 0 to `lags` - 1: means of products over the variance."""
    size = 1 << (2 * len(values) - 1).bit_length()
    power = np.abs(np.fft.rfft(values, size)) ** 2
    sums = np.fft.irfft(power, size)[:lags]
    found: NDArray[np.float64] = sums / (len(values) - np.arange(lags)) / max(float(np.mean(values**2)), 1e-300)
    return found
