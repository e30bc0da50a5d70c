"""Medians and quantiles: what numpy gives of each, to the last bit, in a tenth of the time.

That holds of numbers whose differences are finite, which curves have. A median is what numpy's is of infinite values
and of NaN, too; a quantile of such values is not.

np.median itself takes so long since it partitions around two places, which numpy cannot do with vector instructions,
and np.quantile, of a thousand values or fewer, as it is made for any axes and methods.
"""

from __future__ import annotations

import math
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Number = TypeVar("Number", float, Floats)

_FEW: Final = 64
"""Values that are quicker sorted as a list."""
_SORTED: Final = 256
"""Values in a row up to which numpy sorts without parting them first, in half of the time for each."""
_MANY, _APART, _SPREAD = 800, 16, 1.25
"""Values of which a sample tells where the middle is; the distance of those in it; and how far around it is looked, in
square roots of their number."""


def windows(values: Floats, width: int) -> Floats:
    """Each `width` neighbours [N - width + 1, width], in place: what numpy's sliding_window_view gives, in a tenth of
    its time."""
    values = np.ascontiguousarray(values)
    num, size = len(values) - width + 1, values.itemsize
    return np.ndarray((num, width), values.dtype, values, strides=(size, size))


def median(values: NDArray[np.number[Any]]) -> float:
    """The median; NaN where there are none, or one of them is."""
    num = len(values)
    half = num // 2
    if num <= _FEW:
        ordered = sorted(values.tolist())
        if not num:
            return float("nan")
        if not math.isnan(sum(ordered)):  # which no order has a place for
            return float(middle_of(ordered))
    near, below = _near(values, half - 1)
    if math.isnan(near[-1]):
        return float("nan")
    upper = float(near[half - below])
    return upper if num % 2 else (float(near[half - 1 - below]) + upper) / 2


def is_median_at_most(values: Floats, bound: float) -> bool:
    """Whether their median, of one finite value or more, is no more than `bound`: by counting, not in order."""
    low, half = int(np.count_nonzero(values <= bound)), len(values) // 2
    return median(values) <= bound if low == half and len(values) % 2 == 0 else low > half


def are_medians_at_most(rows: Floats, bounds: Floats) -> NDArray[np.bool_]:
    """The same of each row and its bound [N]."""
    width = rows.shape[1]
    low = np.count_nonzero(rows <= bounds[:, np.newaxis], axis=1)
    most: NDArray[np.bool_] = low > width // 2
    for at in np.flatnonzero(low == width // 2).tolist() if width % 2 == 0 else ():
        most[at] = median(rows[at]) <= bounds[at]
    return most


def medians(rows: Floats) -> Floats:
    """The median of each row [N]."""
    width = rows.shape[1]
    if width in (3, 5):
        return medians_of_few([*rows.T])
    if _SORTED < width <= 2 * _SORTED:
        lower, upper = _middles_of_halves(rows)
        return lower if width % 2 else (lower + upper) / 2
    half = width // 2
    ordered = np.sort(rows, axis=1)
    upper, last = ordered[:, half], ordered[:, -1]
    result: Floats = upper if width % 2 else (ordered[:, half - 1] + upper) / 2
    return np.where(np.isnan(last), np.nan, result) if np.isnan(last).any() else result


def quantile(values: Floats, part: float) -> float:
    """The value that a `part` of the finite `values` lies below, between the two nearest; one at least."""
    place = (len(values) - 1) * part
    at = int(place)
    near, below = _near(values, at)
    low, high = float(near[at - below]), float(near[min(at + 1 - below, len(near) - 1)])
    return _between(low, high, place - at)


def quantiles(rows: Floats, part: float) -> Floats:
    """The same of each row [N]."""
    place = (rows.shape[1] - 1) * part
    at = int(place)
    share = place - at
    if part == 0.5 and _SORTED < rows.shape[1] <= 2 * _SORTED:
        return _between(*_middles_of_halves(rows), share)
    parts = np.partition(rows, at, axis=1)
    below: Floats = parts[:, at]
    if at + 1 == rows.shape[1]:
        return below
    above: Floats = parts[:, at + 1 :].min(axis=1)
    return _between(below, above, share)


def lower_quantile(values: Floats, part: float) -> float:
    """The same, the nearest of the values from below."""
    at = int((len(values) - 1) * part)
    near, below = _near(values, at)
    return float(near[at - below])


def deviations(rows: Floats) -> Floats:
    """The median distance of the values of each row from their median [N]."""
    return medians(np.abs(rows - medians(rows)[:, np.newaxis]))


def _between(low: Number, high: Number, share: float) -> Number:
    return low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)


def _near(values: NDArray[np.number[Any]], at: int) -> tuple[NDArray[np.number[Any]], int]:
    """Those of `values` in order, among which are the ones at the places `at` and `at + 1` of all; and how many of the
    others are below these.

    Of many they are what lies between two of a sample, as in Floyd and Rivest's selection; all where it does not hold
    them, or where some value is no number.
    """
    if len(values) >= _MANY and not math.isnan(values.max()):
        sample = np.sort(values[::_APART])
        place, spread = at // _APART, int(_SPREAD * math.sqrt(len(sample))) + 1
        low, high = sample[max(place - spread, 0)], sample[min(place + spread, len(sample) - 1)]
        lower = values < low
        below, near = int(np.count_nonzero(lower)), values.compress(lower ^ (values <= high))
        if below <= at and at + 1 < below + len(near):
            near.sort()
            return near, below
    return np.sort(values), 0


def _middles_of_halves(rows: Floats) -> tuple[Floats, Floats]:
    """The values next below and above the middle of each row; odd: the one in it, and the next above.

    Of two halves in order, one forwards beside the other backwards, the lower of each pair are the lower half of all.
    """
    num, width = rows.shape
    half = (width + 1) // 2
    halves = np.full((2, num, half), np.inf)
    halves[0], halves[1, :, : width - half] = rows[:, :half], rows[:, half:]
    halves.sort(axis=2)
    one, other = halves[0], halves[1, :, ::-1]
    return np.minimum(one, other).max(axis=1), np.maximum(one, other).min(axis=1)


def medians_of_few(columns: list[Floats]) -> Floats:
    """The median of three or five, value by value."""
    if len(columns) == 5:
        one, other, third, fourth, last = columns
        low = np.maximum(np.minimum(one, other), np.minimum(third, fourth))
        columns = [low, np.minimum(np.maximum(one, other), np.maximum(third, fourth)), last]
    one, other, last = columns
    result: Floats = np.maximum(np.minimum(one, other), np.minimum(np.maximum(one, other), last))
    return result


def middle_of(window: list[float]) -> float:
    """The median of some values in order."""
    half = len(window) // 2
    return window[half] if len(window) % 2 else (window[half - 1] + window[half]) / 2
