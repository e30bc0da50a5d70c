"""Medians and quantiles, of windows, too: what numpy gives of each, to the last bit, in a tenth of the time.

That holds of numbers whose differences are finite, which curves have. A median is what numpy's is of infinite values
and of NaN, too; a quantile of such values, and the growing median of NaN, are not.

Values are replaced by their ranks, small integers, of which a processor's vectors hold more. np.median itself takes so
long since it partitions around two places, which numpy cannot do with vector instructions, and np.quantile, of a
thousand values or fewer, as it is made for any axes and methods.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_FEW: Final = 64
"""Values that are quicker sorted as a list."""
_NARROW: Final = 24
"""Values in a window of which ranks are not worth their making."""
_TOGETHER: Final = 8
"""Neighbouring windows that are looked at together."""
_WIDE: Final = 128
"""Values in a window whose deviations are quicker found in a list that is kept in order."""


def median(values: Floats) -> float:
    """The median; NaN where there are none, or one of them is."""
    num = len(values)
    half = num // 2
    if num <= _FEW:
        ordered = sorted(values.tolist())
        if not num:
            return float("nan")
        if not math.isnan(sum(ordered)):  # which no order has a place for
            return float(_middle(ordered))
    parts = np.partition(values, half)
    upper = float(parts[half])
    if math.isnan(parts[half:].max()):
        return float("nan")
    return upper if num % 2 else (float(parts[:half].max()) + upper) / 2


def medians(rows: Floats) -> Floats:
    """The median of each row [N]."""
    width = rows.shape[1]
    half = width // 2
    parts = np.partition(rows, half, axis=1)
    upper = parts[:, half]
    result: Floats = upper if width % 2 else (parts[:, :half].max(axis=1) + upper) / 2
    return np.where(np.isnan(rows).any(axis=1), np.nan, result) if np.isnan(rows.max(initial=0.0)) else result


def quantile(values: Floats, part: float) -> float:
    """The value that a `part` of the finite `values` lies below, between the two nearest; one at least."""
    return float(quantiles(values[np.newaxis], part)[0])


def quantiles(rows: Floats, part: float) -> Floats:
    """The same of each row [N]."""
    place = (rows.shape[1] - 1) * part
    at = int(place)
    share = place - at
    parts = np.partition(rows, at, axis=1)
    below: Floats = parts[:, at]
    if at + 1 == rows.shape[1]:
        return below
    above: Floats = parts[:, at + 1 :].min(axis=1)
    found: Floats = below + (above - below) * share if share < 0.5 else above - (above - below) * (1 - share)
    return found


def lower_quantile(values: Floats, part: float) -> float:
    """The same, the nearest of the values from below."""
    at = int((len(values) - 1) * part)
    return float(np.partition(values, at)[at])


def sliding_median(values: Floats, width: int) -> Floats:
    """The median of each `width` neighbours [N - width + 1]."""
    if width in (3, 5):
        return _of_few([values[begin : len(values) - width + 1 + begin] for begin in range(width)])
    if width <= _NARROW or np.isnan(values).any():
        return medians(sliding_window_view(values, width))
    order = np.argsort(values)
    ranks = np.empty(len(values), np.int32)
    ranks[order] = np.arange(len(values), dtype=np.int32)
    ordered = values[order]
    parts = np.partition(_middles(ranks, width), _TOGETHER, axis=1)[: len(values) - width + 1]
    upper: Floats = ordered[parts[:, _TOGETHER]]
    return upper if width % 2 else (ordered[parts[:, :_TOGETHER].max(axis=1)] + upper) / 2


def sliding_minimum(values: Floats, width: int) -> Floats:
    """The least of each `width` neighbours [N - width + 1]."""
    least, num = values, 1
    while num < width:  # of those of half as many
        more = min(num, width - num)
        least, num = np.minimum(least[:-more], least[more:]), num + more
    return least


def sliding_deviation(values: Floats, width: int) -> Floats:
    """The median distance of each `width` neighbours from their median [N - width + 1]."""
    if width <= _WIDE or np.isnan(values).any():
        return deviations(sliding_window_view(values, width))
    return np.fromiter(_deviations(values, width), np.float64, len(values) - width + 1)


def deviations(rows: Floats) -> Floats:
    """The median distance of the values of each row from their median [N]."""
    return medians(np.abs(rows - medians(rows)[:, np.newaxis]))


def growing_median(values: Floats) -> Floats:
    """The median of the first value, of the first two, and so on [N]."""
    window: list[float] = []
    result: list[float] = []
    for num, value in enumerate(values.tolist(), 1):
        insort(window, value)
        half = num // 2
        result.append(window[half] if num % 2 else (window[half - 1] + window[half]) / 2)
    return np.array(result)


def _of_few(columns: list[Floats]) -> Floats:
    """The median of three or five, value by value."""
    if len(columns) == 5:
        one, other, third, fourth, last = columns
        low = np.maximum(np.minimum(one, other), np.minimum(third, fourth))
        columns = [low, np.minimum(np.maximum(one, other), np.maximum(third, fourth)), last]
    one, other, last = columns
    result: Floats = np.maximum(np.minimum(one, other), np.minimum(np.maximum(one, other), last))
    return result


def _windows(values: Floats, width: int) -> Iterator[list[float]]:
    """Each `width` neighbours in order: one list, which changes."""
    numbers = values.tolist()
    window = sorted(numbers[:width])
    yield window
    for old, new in zip(numbers, numbers[width:], strict=False):
        del window[bisect_left(window, old)]
        insort(window, new)
        yield window


def _middles(ranks: NDArray[np.int32], width: int) -> NDArray[np.int32]:
    """Of each `width` neighbours the sixteen in their middle [N - width + 1, and some more to fill the last eight, 16].

    Eight windows in a row share all but seven values of each. Of what they share only the nine in the middle can be
    next to a window's middle, which seven others move by seven places at most.
    """
    beside, low = _TOGETHER - 1, width // 2 - _TOGETHER
    ranks = np.append(ranks, np.repeat(ranks[-1:], (width - 1 - len(ranks)) % _TOGETHER))
    windows = sliding_window_view(ranks, width)[::_TOGETHER]
    shared = np.partition(windows[:, beside:], low, axis=1)[:, low:]
    shared.partition(_TOGETHER, axis=1)
    others = np.concatenate([windows[:, :beside], sliding_window_view(ranks, beside)[width::_TOGETHER]], axis=1)
    found = np.empty((len(windows), _TOGETHER, 2 * _TOGETHER), np.int32)
    found[:, :, : _TOGETHER + 1] = shared[:, np.newaxis, : _TOGETHER + 1]
    found[:, :, _TOGETHER + 1 :] = sliding_window_view(others, beside, axis=1)
    return found.reshape(-1, 2 * _TOGETHER)


def _middle(window: list[float]) -> float:
    half = len(window) // 2
    return window[half] if len(window) % 2 else (window[half - 1] + window[half]) / 2


def _deviations(values: Floats, width: int) -> Iterator[float]:
    """The values next to the median lie side by side; where they begin moves little from one window to the next."""
    half, first = width // 2, 0
    for window in _windows(values, width):
        middle = _middle(window)
        while first + half + 1 < width and window[first + half + 1] - middle < middle - window[first]:
            first += 1
        while first > 0 and middle - window[first - 1] < window[first + half] - middle:
            first -= 1
        below, above = middle - window[first], window[first + half] - middle
        if width % 2:
            yield max(below, above)
        elif below > above:
            yield (max(middle - window[first + 1], above) + below) / 2
        else:
            yield (max(below, window[first + half - 1] - middle) + above) / 2
