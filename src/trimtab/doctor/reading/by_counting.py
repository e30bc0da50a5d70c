"""What is told of many places of a curve by counting, without medians and quantiles of what lies before each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.reading.curves import NORMAL, Curve, Floats
from trimtab.doctor.reading.medians import medians, quantiles, windows

LITTLE, FEW = 0.2, 3
"""Times the noise of all steps, that the middle of differences hardly is off; and places that are no more work."""


def is_quiet(curve: Curve, width: int, places: NDArray[np.int64], bounds: Floats) -> NDArray[np.bool_]:
    """Whether the local noise at `places` is below `bounds`, which exceed that of all steps; False where counting does
    not tell.

    Where more than half of the differences before lie below a little, and above minus that, so does their median; and
    where more than half are nearer to 0 than the bound by so much, they are near enough to the median.
    """
    if len(places) <= FEW or len(curve) < width + 2:
        return np.zeros(len(places), np.bool_)
    begins, little = np.maximum(places - width - 1, 0), LITTLE * curve.noise
    differences = curve.values[1:] - curve.values[:-1]
    distances, near = np.abs(differences), bounds * (np.sqrt(2) / NORMAL * (1 - 1e-9)) - little
    quiet = np.ones(len(places), np.bool_)
    for side in (differences <= little, differences >= -little):
        quiet &= 2 * _num_in(side, begins, width) > width
    # The least of the bounds is enough for most places; the others are counted one by one.
    unsure = np.flatnonzero(quiet & (2 * _num_in(distances < near.min(), begins, width) <= width))
    if len(unsure):
        around = windows(distances, width)[begins[unsure]]
        quiet[unsure] = 2 * np.count_nonzero(around < near[unsure, np.newaxis], axis=1) > width
    return quiet


def may_rise(values: Floats, smooth: Floats, low: Floats, begin: int, least: float) -> bool:
    """Whether medians of 15 may come to `least` above what the level is nowhere below: half of 15 values are above
    what no half of any of its three fives is above. They are computed where that is so, but at the ends."""
    half = 7
    beside = np.concatenate([smooth[5:0:-1], smooth, smooth[-2:-7:-1]])
    most = np.maximum(np.maximum(beside[:-10], beside[10:]), smooth)
    places = begin + np.flatnonzero(most[begin:] - low[begin - half : len(low) - half] > least)
    inside = places[(places >= half) & (places < len(values) - half)]
    if len(inside) < len(places) or not len(inside):
        return len(places) > 0
    return bool((medians(windows(values, 2 * half + 1)[inside - half]) - low[inside - half] > least).any())


def is_beyond_usual(excess: Floats, width: int, places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each of `places` exceeds twice what one in twenty of the `width` values before it does: batches of mixed
    difficulty reach so far. By counting, but where it is between two of them."""
    beyond, at = np.ones(len(places), np.bool_), int((width - 1) * 0.95)
    late = np.flatnonzero(places >= width)
    if len(late):
        # So are most by the lowest of them; the others are counted one by one.
        lowest = 0.5 * float(excess[places[late]].min())
        late = late[_num_in(excess < lowest, places[late] - width, width) <= at + 1]
    if len(late):
        before, half = windows(excess, width)[places[late] - width], 0.5 * excess[places[late]]
        num_below = np.count_nonzero(before < half[:, np.newaxis], axis=1)
        beyond[late] = num_below > at + 1
        near = np.flatnonzero(num_below == at + 1)
        beyond[late[near]] = half[near] > quantiles(before[near], 0.95)
    return beyond


def _num_in(which: NDArray[np.bool_], begins: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """How many of `which` are in the `width` values from each of `begins`."""
    num = np.cumsum(which, dtype=np.int64)
    after_first: NDArray[np.int64] = num[begins + width - 1] - num[begins]
    return after_first + which[begins]
