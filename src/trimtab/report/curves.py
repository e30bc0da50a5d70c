"""A metric as a line to draw: at most a few hundred columns, whatever the length of the run."""

from __future__ import annotations

from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from trimtab.runs.history import Series

COLUMNS: Final = 600
"""Points of a curve over the whole width of a page."""

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]


class Curve(NamedTuple):
    """Buckets of samples, one row each, in the order of their steps."""

    first: Steps
    last: Steps
    low: Floats
    mean: Floats
    high: Floats
    """The least, mean and largest finite sample; NaN where there is none."""
    bad: Steps
    """How many samples are not finite."""

    @classmethod
    def of(cls, series: Series) -> Self:
        """What a series holds."""
        return cls(series.first_steps, series.steps, series.minimum, series.mean, series.maximum, series.bad)

    @classmethod
    def points(cls, steps: Steps, values: Floats) -> Self:
        """Single samples."""
        finite = np.isfinite(values)
        clean = np.where(finite, values, np.nan)
        return cls(steps, steps, clean, clean, clean, (~finite).astype(np.int64))

    def __bool__(self) -> bool:
        """Whether there is anything to draw."""
        return bool(np.isfinite(self.mean).any())

    def between(self, begin: int, end: int) -> Curve:
        """The buckets that touch steps `begin` to `end`, both included."""
        kept = (self.last >= begin) & (self.first <= end)
        first, last, low, mean, high, bad = self
        return Curve(first[kept], last[kept], low[kept], mean[kept], high[kept], bad[kept])

    def finite(self) -> tuple[Steps, Floats]:
        """Steps and means of the buckets that hold a finite sample."""
        kept = np.isfinite(self.mean)
        return self.last[kept], self.mean[kept]

    def columns(self, begin: int, end: int, num_columns: int = COLUMNS) -> Curve:
        """The same between two steps, in at most `num_columns` rows of equally many steps; extremes are kept."""
        inside = self.between(begin, end)
        if len(inside.last) <= num_columns:
            return inside
        place = (inside.last - begin) * num_columns // max(end - begin + 1, 1)
        starts = np.flatnonzero(np.diff(place, prepend=place[0] - 1))
        finite = np.isfinite(inside.mean)
        total = np.add.reduceat(np.where(finite, inside.mean, 0.0), starts)
        num = np.add.reduceat(finite.astype(np.int64), starts)
        mean = np.full(len(starts), np.nan)
        np.divide(total, num, out=mean, where=num > 0)
        return Curve(
            inside.first[starts],
            inside.last[np.append(starts[1:], len(place)) - 1],
            np.fmin.reduceat(inside.low, starts),
            mean,
            np.fmax.reduceat(inside.high, starts),
            np.add.reduceat(inside.bad, starts),
        )

    def bad_spans(self) -> list[tuple[int, int]]:
        """First and last step of the stretches in which some sample is not finite."""
        rows = np.flatnonzero(self.bad > 0)
        if not len(rows):
            return []
        groups = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
        return [(int(self.first[group[0]]), int(self.last[group[-1]])) for group in groups]


def smoothed(values: Floats, part: float = 0.03) -> Floats:
    """A centred mean over `part` of the values; gaps stay gaps and are not bridged.

    It is narrower where a stretch begins, for a loss falls steeply there, and one-sided where it ends. A single value
    far from its neighbours does not lift them.
    """
    half = max(1, round(len(values) * part / 2))
    result = np.full(len(values), np.nan)
    for rows in stretches(np.isfinite(values)):
        once = _centred_mean(_median_of_five(values[rows]), half)
        result[rows] = _centred_mean(once, half)
    return result


def stretches(there: NDArray[np.bool_]) -> list[slice]:
    """The runs of True, as slices."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], there, [False])).astype(np.int8)))
    return [slice(int(begin), int(end)) for begin, end in zip(edges[0::2], edges[1::2], strict=True)]


def _median_of_five(values: Floats) -> Floats:
    if len(values) < 12:
        return values
    padded = np.concatenate((values[:1], values[:1], values, values[-1:], values[-1:]))
    median: Floats = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1)
    return median


def _centred_mean(values: Floats, half: int) -> Floats:
    num = len(values)
    at = np.arange(num)
    begin, end = at - np.minimum(at, half), np.minimum(at + np.minimum(at, half) + 1, num)
    sums = np.concatenate(([0.0], np.cumsum(values)))
    mean: Floats = (sums[end] - sums[begin]) / (end - begin)
    return mean


def robust_range(values: Floats, *, keep: float = 0.985, tolerance: float = 3.0) -> tuple[float, float] | None:
    """Least and largest of `values`; a few far above the rest do not count, so that they do not flatten it.

    They count when the whole span is at most `tolerance` times that of the lower `keep` of the values.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = float(values.min()), float(values.max())
    inner_low, inner_high = (float(bound) for bound in np.quantile(values, [1 - keep, keep]))
    inner = inner_high - inner_low
    if inner <= 0:
        return low, high
    if high - inner_high > (tolerance - 1) * inner:
        high = float(values[values <= inner_high + 0.35 * inner].max())
    if inner_low - low > (tolerance - 1) * inner:
        low = float(values[values >= inner_low - 0.35 * inner].min())
    return low, high
