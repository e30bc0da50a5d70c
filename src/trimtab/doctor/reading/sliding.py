"""Medians of windows, as one slides along values or grows: those of each, to the last bit, in a tenth of the time.

That holds of numbers whose differences are finite, which curves have; the growing median of NaN is not.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.reading.medians import Floats, deviations, medians, medians_of_few, middle_of, windows

_NARROW: Final = 24
"""Values in a window of which few, up to `_SHORT` in all, are quicker looked at one by one."""
_SHORT: Final = 800
_TOGETHER: Final = (4, 8, 16)
"""Neighbouring windows that are looked at together: the more, the wider they are."""
_WIDTHS: Final = 16
"""Values in a window for each of them, beyond which twice as many are."""
_WIDE: Final = 128
"""Values in a window whose deviations are quicker found in a list that is kept in order."""


def sliding_median(values: Floats, width: int) -> Floats:
    """The median of each `width` neighbours [N - width + 1]."""
    if width in (3, 5):
        return medians_of_few([values[begin : len(values) - width + 1 + begin] for begin in range(width)])
    if width < 2 * _TOGETHER[0] or (width <= _NARROW and len(values) < _SHORT) or np.isnan(values).any():
        return medians(windows(values, width))
    together = next(num for num in _TOGETHER if width < _WIDTHS * num or num == _TOGETHER[-1])
    lower, upper = _middles(values, width, together)
    middle: Floats = upper if width % 2 else (lower + upper) / 2
    return middle


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
        return deviations(windows(values, width))
    return np.fromiter(_deviations(values, width), np.float64, len(values) - width + 1)


def growing_median(values: Floats) -> Floats:
    """The median of the first value, of the first two, and so on [N]."""
    numbers: list[float] = values.tolist()
    window: list[float] = []
    result: list[float] = []
    for half, (odd, even) in enumerate(zip(numbers[::2], numbers[1::2], strict=False)):
        insort(window, odd)
        result.append(window[half])
        insort(window, even)
        result.append((window[half] + window[half + 1]) / 2)
    if len(numbers) % 2:
        insort(window, numbers[-1])
        result.append(window[len(numbers) // 2])
    return np.array(result)


def _windows(values: Floats, width: int) -> Iterator[list[float]]:
    """Each `width` neighbours in order: one list, which changes."""
    numbers = values.tolist()
    window = sorted(numbers[:width])
    yield window
    for old, new in zip(numbers, numbers[width:], strict=False):
        del window[bisect_left(window, old)]
        insort(window, new)
        yield window


def _middles(values: Floats, width: int, together: int) -> Floats:
    """The values next below and above the middle of each `width` neighbours [2, N - width + 1]; odd: below and at it.

    Windows in a row, `together` of them, share all but a few values, which are sorted but once. What a window lacks
    moves its middle by one place for each value at most, so that of what all share only so many need be kept; each
    value that is put in its place moves out the lowest and the highest. The windows are then halved, and each half
    takes what its windows share besides, until every window is by itself.
    """
    num = len(values) - width + 1
    groups = -(-num // together)
    values = np.concatenate([values, np.full(groups * together - num, values[-1])])
    shared = windows(values[together - 1 :], width - together + 1)[::together]
    kept = np.sort(shared, axis=1)[:, width // 2 - together : width // 2 + 1].T.copy()  # a column for each group
    while together > 1:
        half, groups = together // 2, kept.shape[1]
        halves = np.empty((half + 1, groups, 2))
        for side, begin in enumerate((half - 1, width)):
            inner = kept
            for first in range(begin, begin + half):
                other = values[first : first + (groups - 1) * together + 1 : together]
                inner = np.maximum(inner[:-1], np.minimum(inner[1:], other))
            halves[:, :, side] = inner
        kept, together = halves.reshape(half + 1, 2 * groups), half
    return kept[:, :num]


def _deviations(values: Floats, width: int) -> Iterator[float]:
    """The values next to the median lie side by side; where they begin moves little from one window to the next."""
    half, first = width // 2, 0
    for window in _windows(values, width):
        middle = middle_of(window)
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
