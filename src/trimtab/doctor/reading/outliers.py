"""Single steps whose loss stands out while the next is as before: what is back at once was the batch."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.reading.curves import Curve, running_median
from trimtab.doctor.reading.medians import quantile
from trimtab.runs.history import Series

NOISES: Final = 8.0
PART: Final = 0.3
CLEAR: Final = 2.0
"""Times the highest of all other steps."""


def outliers_of(
    series: Series, ease: float = 1.0
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """Single steps whose loss stands out while the next is as before; the level before, and the noise there.

    `ease` is what the bounds are multiplied by.
    """
    values, curve = series.mean, Curve.of(series)
    finite = np.isfinite(values)
    if curve is None:
        return ~finite & False, values, np.zeros(len(values))
    if len(curve) < len(values):
        filled = np.interp(np.arange(len(values)), np.flatnonzero(finite), values[finite])
        curve = Curve(np.arange(len(filled)), filled)
    filled = curve.values
    none = np.zeros(len(filled), np.bool_)
    above = filled - curve.running_median(5)
    if float(above.max()) < 0.9 * max(PART * curve.descent, 0.05 * abs(curve.end)):
        return none, filled, np.full(len(filled), curve.noise)  # what follows takes its time
    width = max(15, len(filled) // 20)
    usual = curve.trailing_median(width)
    excess = np.where(np.isfinite(usual), filled - usual, 0.0)
    # What 98 in 100 steps stay below, twice; and twice as far as the noise reaches down.
    reach = max(2.5 * quantile(excess[width // 2 :], 0.98), -2.0 * float(excess[len(excess) // 5 :].min()))
    least = max(NOISES * curve.noise, PART * curve.descent, reach, 0.05 * abs(curve.end))
    high = (excess > ease * least) & finite
    high[: max(8, len(filled) // 50)] = False
    beside, places = np.concatenate([excess, [0.0, 0.0]]), np.flatnonzero(high)
    for other in (places - 1, places + 1, places + 2):
        high[places] &= beside[other] < 0.3 * excess[places]
    noise = curve.local_noise(2 * width, np.flatnonzero(high))  # of all others it is not asked
    high &= excess > ease * np.maximum(NOISES * noise, least)
    # Hard batches reach ever a little farther than others; what is of another kind stands by itself.
    others = float(excess[~high][width // 2 :].max(initial=0.0))
    high &= excess > ease * CLEAR * others
    return high, usual, noise


def lone_bad(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Steps whose loss is not finite while those around them are; none where they are many, or where a run ends so."""
    bad = ~np.isfinite(values)
    if not bad.any() or bad[-1] or bad[0] or bad.mean() > 0.03:
        return np.zeros_like(bad)
    alone: NDArray[np.bool_] = bad & ~np.append(bad[1:], True) & ~np.insert(bad[:-1], 0, True)
    return alone if (alone == bad).all() else np.zeros_like(bad)


def farthest(curve: Curve, begin: int) -> int:
    """Where, from the index `begin` on, a loss is farthest above its running median over 15, which is nowhere below
    the lowest of the medians of the three fives in it: only where it is so far above that may it be."""
    smooth = curve.running_median(5)
    beside = np.concatenate([smooth[5:0:-1], smooth, smooth[-2:-7:-1]])
    most = (curve.values - np.minimum(np.minimum(beside[:-10], beside[10:]), smooth))[begin:]

    def heights(places: NDArray[np.int64]) -> NDArray[np.float64]:
        return curve.values[places] - running_median(curve.values, 15, places)

    may = begin + np.flatnonzero(most >= heights(np.array([begin + int(most.argmax())])))
    return int(may[int(heights(may).argmax())])
