"""Curves as the rules see them: levels, noise and progress by medians, which single steps cannot move.

Everything is estimated from the run itself: the noise of a step from the differences of neighbours, the phases of the
schedule from the rates that were applied. Nothing here knows what a good loss is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Self, final

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.reading.medians import deviations, lower_quantile, median, medians, windows
from trimtab.doctor.reading.once import once
from trimtab.doctor.reading.sliding import growing_median, sliding_deviation, sliding_median, sliding_minimum
from trimtab.runs.history import Series

FEW: Final = 24
"""Places at which medians are quicker found one by one."""
MANY, MANY_TO_SMOOTH, APART = 800, 20, 3
"""Values of which not all need be smoothed; the part of them that is; and how many in a width are to find the least."""
ERROR_OF_MEDIAN = 1.2533
"""Standard error of a median of many normal values over that of their mean."""

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]

NORMAL = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


@final
@dataclass(frozen=True, eq=False)
class Curve:
    """The finite values of a metric over steps; each is the mean of a bucket when the run is long."""

    steps: Steps
    values: Floats
    derived: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)
    """What `once` has read off it."""

    @classmethod
    def of(cls, series: Series | None) -> Self | None:
        """The curve of a series, the same for all who ask; None when it has no finite value."""
        if series is None:
            return None
        if Curve not in series.derived:
            series.derived[Curve] = _curve_of(series)
        known: Self | None = series.derived[Curve]
        return known

    def __len__(self) -> int:
        """Values."""
        return len(self.values)

    @property
    def first_step(self) -> int:
        """Step of the first value."""
        return int(self.steps[0])

    @property
    def last_step(self) -> int:
        """Step of the last value."""
        return int(self.steps[-1])

    @cached_property
    def _in_order(self) -> bool:
        """Whether no step comes before an earlier one, as in every log but some that were put together by hand."""
        return bool((self.steps[1:] >= self.steps[:-1]).all())

    @cached_property
    def from_start(self) -> bool:
        """Whether it begins with the run: what begins later does not tell what a guess costs, nor what was gained."""
        apart = np.diff(self.steps)
        return not len(apart) or self.first_step <= 2 * int(apart.min()) or self.first_step <= 2.0 * median(apart)

    @cached_property
    def noise(self) -> float:
        """Standard deviation of one value around the trend, from the differences of neighbours."""
        return noise_of(self.values)

    @cached_property
    def width(self) -> int:
        """Values that smoothing looks at: a fortieth of the curve, odd, 5 to 101."""
        return min(max(len(self) // 40, 2), 50) * 2 + 1

    @cached_property
    def smoothed(self) -> Floats:
        """Running median, centred."""
        return self.running_median(self.width)

    @once
    def running_median(self, width: int) -> Floats:
        """The running median over `width` (odd) values, centred."""
        return running_median(self.values, width)

    def trailing_median(self, width: int, places: Steps | None = None) -> Floats:
        """The median of the `width` values before each; of a few `places` alone it is computed, NaN elsewhere."""
        if places is None or len(places) > FEW:
            return self._trailing_median(width)
        result = np.full(len(self), np.nan)
        for place in places[places > 0].tolist():
            result[place] = median(self.values[max(place - width, 0) : place])
        return result

    @once
    def _trailing_median(self, width: int) -> Floats:
        return trailing_median(self.values, width)

    @once
    def below_trailing_median(self, width: int) -> Floats:
        """What that is nowhere below."""
        return below_trailing_median(self.values, width)

    @cached_property
    def median(self) -> float:
        """The median of all values."""
        return median(self.values)

    @once
    def lower_quantile(self, part: float) -> float:
        """The value that a `part` of all lies below, the nearest from below."""
        return lower_quantile(self.values, part)

    def local_noise(self, width: int, places: Steps) -> Floats:
        """The noise of single values at a few `places`, that of all elsewhere."""
        known, noise = self._noises(width), np.full(len(self), self.noise)
        new = np.array([place for place in places.tolist() if place not in known], np.int64)
        if len(new) > FEW // 4:
            known.update(zip(new.tolist(), local_noise(self.values, width, new, self.noise)[new].tolist(), strict=True))
        noise[places] = [self.noise_at(place, width) for place in places.tolist()]
        return noise

    def noise_at(self, place: int, width: int) -> float:
        """The same at one place."""
        known, begin = self._noises(width), max(place - width - 1, 0)
        if place not in known:
            around = noise_of(self.values[begin : begin + width + 1]) if len(self) >= width + 2 else 0.0
            known[place] = max(around, self.noise)
        return known[place]

    @once
    def _noises(self, width: int) -> dict[int, float]:
        """What is known of the noise at single places, which `local_noise` adds to."""
        return {}

    @cached_property
    def start(self) -> float:
        """Where it begins: the median of the first hundredth."""
        return median(self.values[: max(1, len(self) // 100)])

    @cached_property
    def end(self) -> float:
        """Where it ends: the median of the last twentieth, of three values at least."""
        return median(self.values[-max(3, len(self) // 20) :])

    @cached_property
    def floor(self) -> float:
        """The lowest that it has been, smoothed."""
        return float(self.smoothed.min()) if len(self) < MANY else least_running_median(self.values, self.width)

    @property
    def descent(self) -> float:
        """From the start to the floor."""
        return max(self.start - self.floor, 0.0)

    def between(self, first: float, last: float) -> Curve | None:
        """The part from one step to another, both included; None when nothing lies there."""
        if not self._in_order:
            kept = (self.steps >= first) & (self.steps <= last)
            return Curve(self.steps[kept], self.values[kept]) if kept.any() else None
        begin, end = _place(self.steps, first), _place(self.steps, last, after=True)
        return Curve(self.steps[begin:end], self.values[begin:end]) if begin < end else None

    def level(self, first: float, last: float) -> float:
        """The median between two steps; NaN when nothing lies there."""
        part = self.between(first, last)
        return median(part.values) if part is not None else float("nan")

    def at(self, step: float) -> float:
        """The smoothed value at a step, interpolated."""
        return float(self.along(np.array([step]))[0])

    def along(self, steps: Floats | Steps) -> Floats:
        """The same at many; of a long curve only its values next to these are smoothed."""
        if len(self) < MANY or len(steps) > len(self) // MANY_TO_SMOOTH or not self._in_order:
            return np.interp(steps, self.steps, self.smoothed)
        after = self.steps.searchsorted(steps, side="right")
        places, smoothed = np.concatenate([np.maximum(after - 1, 0), np.minimum(after, len(self) - 1)]), self._smoothed
        new = places[np.isnan(smoothed[places])]
        if len(new):
            smoothed[new] = running_median(self.values, self.width, new)
        return np.interp(steps, self.steps, smoothed)

    @cached_property
    def _smoothed(self) -> Floats:
        """What `along` knows of it, NaN elsewhere."""
        return np.full(len(self), np.nan)

    def blocks(self, num: int) -> tuple[Steps, Floats, int]:
        """Last step and median of `num` equal parts (fewer when there are fewer values), and values in a part."""
        num = min(num, len(self))
        size = len(self) // num
        tail = len(self) - size * num  # what does not fill a part is left out at the front
        values = medians(self.values[tail:].reshape(num, size))
        return self.steps[tail:].reshape(num, size)[:, -1], values, size

    def progress(self, first: float, last: float) -> float:
        """How far it falls between two steps: first quarter's median less last quarter's."""
        quarter = (last - first) / 4
        return self.level(first, first + quarter) - self.level(last - quarter, last)

    def error(self, num: int) -> float:
        """Standard error of a median of `num` values."""
        return ERROR_OF_MEDIAN * self.noise / float(np.sqrt(max(num, 1)))


@final
@dataclass(frozen=True)
class Phases:
    """What the schedule does, read from the rates that were applied."""

    peak: float
    peak_from: int
    """The first step within 1 % of the peak: where a warm-up ends."""
    high_until: int
    """The last step with at least half of the peak."""
    first: int
    last: int

    @classmethod
    def of(cls, rates: Series | None, first: int, last: int) -> Self:
        """The phases of the learning rate; one without rates is taken as constant."""
        curve = Curve.of(rates)
        if curve is None:
            return cls(float("nan"), first, last, first, last)
        heights = _heights(curve)
        return cls(*(heights or (0.0, first, last)), first, last)

    @property
    def decays(self) -> bool:
        """Whether the rate falls below half of its peak before the end."""
        return self.high_until < self.last - 0.02 * (self.last - self.first)


def _curve_of(series: Series) -> Curve | None:
    steps, values = series.finite()
    steps.flags.writeable = values.flags.writeable = False
    return Curve(steps, values) if len(values) else None


@once
def _heights(rates: Curve) -> tuple[float, int, int] | None:
    """The peak of a rate, the first step near it, and the last with half of it; None where it is nowhere above 0."""
    highest = float(rates.values.max())
    if highest <= 0:
        return None
    # The height that a twentieth of the steps exceed: a short jump of the rate is no phase of the schedule.
    # Of fewer than twenty values the highest may be all that is seen of it.
    peak = rates.lower_quantile(0.95) if len(rates) >= 20 else highest
    peak = peak or highest
    high = rates.steps[rates.values >= 0.5 * peak]
    return peak, int(rates.steps[rates.values >= 0.99 * peak][0]), int(high[-1])


def _place(steps: Steps, step: float, *, after: bool = False) -> int:
    """Where `step` belongs among steps in order, `after` those that are alike or before."""
    if math.isfinite(step):  # a whole one, so that they need not be converted
        step = math.floor(step) if after else math.ceil(step)
    return int(steps.searchsorted(step, side="right" if after else "left"))


def noise_of(values: Floats) -> float:
    """Standard deviation of single values around their trend, robustly: 0 for fewer than three."""
    if len(values) < 3:
        return 0.0
    differences = values[1:] - values[:-1]
    return float(NORMAL * median(np.abs(differences - median(differences))) / np.sqrt(2))


def resolution(values: Floats) -> float:
    """The last digit that was kept: a tenth to a ten-thousandth, of which all values are multiples; else 0."""
    few = values[:32]
    if np.abs(few - np.round(few, 4)).max(initial=0.0) > 1e-6 + 1e-12 * np.abs(few).max(initial=0.0):
        return 0.0  # as of most curves, the first few tell
    for decimals in range(1, 5):
        if all(np.abs(part - np.round(part, decimals)).max(initial=0.0) < 1e-9 for part in (values[:32], values)):
            return float(10.0**-decimals)
    return 0.0


def local_noise(values: Floats, width: int, places: Steps | None = None, whole: float | None = None) -> Floats:
    """The noise of single values in the `width` before each, or around the first; nowhere less than that of all.

    A loss that scatters at the start and lies flat in the end has no one noise. Where it is asked for a few `places`
    alone, others get that of all, which is `whole` where that is known.
    """
    whole = noise_of(values) if whole is None else whole
    noise = np.full(len(values), whole)
    if len(values) < width + 2:
        return noise
    differences = values[1:] - values[:-1]
    # The differences of the window that ends at `i - 1` do not contain the value at `i`.
    if places is None or len(places) > len(values) // 8:
        places = np.arange(len(values))
        around = sliding_deviation(differences, width)[np.maximum(places - width - 1, 0)]
    else:
        around = deviations(windows(differences, width)[np.maximum(places - width - 1, 0)])
    noise[places] = np.maximum(NORMAL * around / np.sqrt(2), whole)
    return noise


def running_median(values: Floats, width: int, places: Steps | None = None) -> Floats:
    """Centred running median over `width` (odd) values; the ends are mirrored. Of a few `places` alone, if given."""
    if len(values) < 3:
        return values if places is None else values[places]
    width = min(width, len(values) - (len(values) + 1) % 2)
    mirrored = _mirrored(values, width // 2)
    return sliding_median(mirrored, width) if places is None else medians(windows(mirrored, width)[places])


def least_running_median(values: Floats, width: int) -> float:
    """The least of that, without most of it: where more than half of the values are below the least of some."""
    mirrored = _mirrored(values, width // 2)
    around = windows(mirrored, width)
    least = float(medians(around[:: width // APART]).min())
    low = np.cumsum(mirrored < least)
    places = np.flatnonzero(low[width:] - low[:-width] > width // 2) + 1  # and never the first, which is known
    return float(medians(around[places]).min()) if len(places) else least


def _mirrored(values: Floats, half: int) -> Floats:
    """With as many values as `half` before and after."""
    return np.concatenate([values[half:0:-1], values, values[-2 : -half - 2 : -1]])


def below_trailing_median(values: Floats, width: int) -> Floats:
    """What `trailing_median` is nowhere below, in a tenth of its time; -inf where nothing is known so quickly.

    Each window holds some whole blocks. Where enough of each block's values lie at or above a bound, so does the middle
    of the window. At the start ever more values are sorted: `some` more move the middle down by half as many at most.
    """
    size = width // 8
    whole = width // size - 1 if size else 0
    spare = size - int(np.ceil((width // 2 + 1) / whole)) if whole > 0 else -1
    number = len(values) // size if size else 0
    bound = np.full(len(values), -np.inf)
    bound[:1] = np.nan
    first, some = values[: width - 1], 2 * max(8, width // 12)
    bound[1:width] = np.minimum.accumulate(first)[: len(values) - 1]
    for num in range(some, len(first) + 1, some):
        bound[num : min(num + some, width)] = np.sort(first[:num])[(num - some) // 2]
    if spare < 0 or number < whole:
        return bound
    blocks = np.partition(values[: number * size].reshape(number, size), spare, axis=1)[:, spare]
    lowest = sliding_minimum(blocks, whole)  # of the blocks that end with each
    places = np.arange(width, len(values))
    bound[width:] = lowest[places // size - whole]
    return bound


def trailing_median(values: Floats, width: int) -> Floats:
    """The median of the `width` values before each, itself left out; of those that there are at the start."""
    result = np.full(len(values), np.nan)
    if len(values) > width:
        result[width:] = sliding_median(values[:-1], width)
    result[1:width] = growing_median(values[: width - 1])[: len(values) - 1]
    return result
