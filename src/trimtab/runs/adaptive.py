"""Adaptive logging: the values of layers now and then, and all of them around a window that is remarkable.

Source: own. A band is the forecast from the windows before, give or take `threshold` robust standard deviations of how
the metric usually changes from window to window. Nothing here changes what is measured.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Final, final

from trimtab.events import StepsEnded
from trimtab.runs.statistics import StatisticsWriter

if TYPE_CHECKING:
    from trimtab.config.adaptive import AdaptiveLoggingConfig

LEAST_WINDOWS: Final = 8
"""Before that many there is no band, and everything is written."""
_SIGMA: Final = 1.4826
"""From the median of absolute deviations to a standard deviation, of normal values."""
_LEAST: Final = 0.01
"""A band is at least `threshold` times this part of the forecast wide: what hardly changes is allowed as much."""
_RECENT: Final = 5
MOST_AT_ONCE: Final = 300
SHARE: Final = 0.2
"""Windows that may be written beyond the calm ones, and which part of all windows in the long run: a run in which every
window is remarkable has no calm to stand out from."""
RECENT_WINDOWS: Final = 400
MOST_FAR: Final = 2
"""Of so many windows those that leave one band by the most: with 20 windows around each they come to SHARE."""


class Left(IntEnum):
    """Whether a window's values are in their band, outside of it, or further outside than nearly all of late."""

    INSIDE, OUTSIDE, FAR_OUTSIDE = range(3)


_RESERVED: Final = {Left.OUTSIDE: 2 / 3, Left.FAR_OUTSIDE: 1 / 3}
"""Which part of the allowance they leave to what is more remarkable."""
_NOTHING: Final = 0.0
"""Events are told, and may have all of it."""


@final
class Band:
    """What one metric is expected to be in the next window, from its windows so far.

    The level is the median of the last five windows, moved on by the median change; the width comes from the median
    absolute deviation of the changes, and inside of a window from that of its steps. Heavy tails leave it often:
    of the last 400 windows only the two furthest departures are far ones.
    """

    def __init__(self, threshold: float, memory: int) -> None:
        self._threshold = threshold
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._changes: deque[float] = deque(maxlen=memory - 1)
        self._scatter: deque[float] = deque(maxlen=memory)
        self._seen = 0
        self._departures: deque[tuple[int, float]] = deque()

    def leaves(self, values: Sequence[float]) -> Left:
        """Whether the values of a window [steps] do not fit those before; they belong to those from here on."""
        self._seen += 1
        departure = self._departure(values)
        if departure <= self._threshold:
            return Left.INSIDE
        while self._departures and self._departures[0][0] <= self._seen - RECENT_WINDOWS:
            self._departures.popleft()
        further = sum(other >= departure for _, other in self._departures)
        self._departures.append((self._seen, departure))
        return Left.FAR_OUTSIDE if further < MOST_FAR else Left.OUTSIDE

    def _departure(self, values: Sequence[float]) -> float:
        """How far they are from what was expected, in robust standard deviations; infinite where one is not finite."""
        finite = [value for value in values if math.isfinite(value)]
        departure = math.inf if len(finite) < len(values) else 0.0
        if not finite:
            return departure
        mean = sum(finite) / len(finite)
        if len(self._changes) >= LEAST_WINDOWS - 1:
            usual = _median(self._changes)
            expected = _median(self._recent) + usual * (_RECENT + 1) / 2
            width = max(_SIGMA * _median([abs(change - usual) for change in self._changes]), _LEAST * abs(expected))
            scatter = max(width, _SIGMA * _median(self._scatter))
            furthest = max(abs(value - expected) for value in finite)
            departure = max(departure, _ratio(abs(mean - expected), width), _ratio(furthest, scatter))
        if self._recent:
            self._changes.append(mean - self._recent[-1])
        self._recent.append(mean)
        middle = _median(finite)
        self._scatter.append(_median([abs(value - middle) for value in finite]))
        return departure


def _ratio(distance: float, width: float) -> float:
    return distance / width if width else math.inf if distance else 0.0


def _median(values: Collection[float]) -> float:
    """For some hundred numbers several times as quick as numpy's."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


@final
class Detail:
    """Decides which windows' rows the statistics get; those that they did not get wait for a while."""

    def __init__(self, statistics: StatisticsWriter, config: AdaptiveLoggingConfig) -> None:
        self._statistics, self._config = statistics, config
        self._bands = {name: Band(config.threshold, config.memory) for name in config.metrics}
        self._waiting: deque[tuple[int, int, Mapping[str, float]]] = deque()
        self._seen = 0
        self._until = {_NOTHING: LEAST_WINDOWS}
        """Up to which window everything is written, by the part of the allowance that is reserved then."""
        self._most = float(max(MOST_AT_ONCE, 3 * config.around))
        self._allowance = self._most

    def window(self, event: StepsEnded) -> None:
        """A window is over: write its row, or keep it."""
        left = Left.INSIDE
        for name, band in self._bands.items():
            if (series := event.per_step.get(name)) is not None:
                left = max(left, band.leaves(series.tolist()))
            elif name in event.values:
                left = max(left, band.leaves([float(event.values[name])]))
        if event.layers:
            self._seen += 1
            self._allowance = min(self._allowance + SHARE, self._most)
            is_calm = self._seen % self._config.calm_every == 0
            parts = [part for part, last in self._until.items() if last >= self._seen]
            parts += [_RESERVED[left]] if left else []
            if is_calm or (parts and self._allowance >= min(parts) * self._most + 1):
                self._allowance -= not is_calm
                self._statistics.append(event.last_step, event.layers)
            else:
                self._waiting.append((self._seen, event.last_step, dict(event.layers)))
            while self._waiting and self._waiting[0][0] < self._seen - self._config.around + (not left):
                self._waiting.popleft()
        if left:
            self._remark(event.last_step, _RESERVED[left])

    def remarkable(self, step: int) -> None:
        """Write the windows that wait, and those to come; `step` is what it is about."""
        self._remark(step, _NOTHING)

    def _remark(self, step: int, reserved: float) -> None:
        self._write_waiting(reserved)
        self._until[reserved] = max(self._until.get(reserved, 0), self._seen + self._config.around)
        self._statistics.mark(step)

    def write_waiting(self) -> None:
        """Write the rows that were kept, behind newer ones."""
        self._write_waiting(_NOTHING)

    def _write_waiting(self, reserved: float) -> None:
        num = min(len(self._waiting), max(0, int(self._allowance - reserved * self._most)))
        self._allowance -= num
        newest = [self._waiting.pop() for _ in range(num)]
        for _, step, layers in reversed(newest):
            self._statistics.append(step, layers, late=True)

    def went_back(self) -> None:
        """A branch begins: what waits belongs to the one before."""
        self._waiting.clear()
