"""Adaptive logging: the values of layers now and then, and all of them around a window that is remarkable.

Source: own. A band is the forecast from the windows before, give or take `threshold` robust standard deviations of how
the metric usually changes from window to window. Nothing here changes what is measured.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Final, final

from trimtab.config.adaptive import AdaptiveLoggingConfig
from trimtab.events import StepsEnded
from trimtab.runs.statistics import StatisticsWriter

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


@final
class Band:
    """What one metric is expected to be in the next window, from its windows so far.

    The level is the median of the last five windows, moved on by the median change; the width comes from the median
    absolute deviation of the changes, and inside of a window from that of its steps.
    """

    def __init__(self, threshold: float, memory: int) -> None:
        self._threshold = threshold
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._changes: deque[float] = deque(maxlen=memory - 1)
        self._scatter: deque[float] = deque(maxlen=memory)

    def leaves(self, values: Sequence[float]) -> bool:
        """Whether the values of a window [steps] do not fit those before; they belong to those from here on."""
        finite = [value for value in values if math.isfinite(value)]
        is_left = len(finite) < len(values)
        if not finite:
            return is_left
        mean = sum(finite) / len(finite)
        if len(self._changes) >= LEAST_WINDOWS - 1:
            usual = _median(self._changes)
            expected = _median(self._recent) + usual * (_RECENT + 1) / 2
            width = max(_SIGMA * _median([abs(change - usual) for change in self._changes]), _LEAST * abs(expected))
            scatter = max(width, _SIGMA * _median(self._scatter))
            is_left = is_left or abs(mean - expected) > self._threshold * width
            is_left = is_left or max(abs(value - expected) for value in finite) > self._threshold * scatter
        if self._recent:
            self._changes.append(mean - self._recent[-1])
        self._recent.append(mean)
        middle = _median(finite)
        self._scatter.append(_median([abs(value - middle) for value in finite]))
        return is_left


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
        self._to_come = LEAST_WINDOWS
        """Windows of which everything is written."""
        self._most = float(max(MOST_AT_ONCE, 3 * config.around))
        self._allowance = self._most

    def window(self, event: StepsEnded) -> None:
        """A window is over: write its row, or keep it."""
        left = False
        for name, band in self._bands.items():
            if (series := event.per_step.get(name)) is not None:
                left = band.leaves(series.tolist()) or left
            elif name in event.values:
                left = band.leaves([float(event.values[name])]) or left
        if event.layers:
            self._seen += 1
            self._allowance = min(self._allowance + SHARE, self._most)
            is_calm = self._seen % self._config.calm_every == 0
            if is_calm or ((self._to_come > 0 or left) and self._allowance >= 1):
                self._allowance -= not is_calm
                self._statistics.append(event.last_step, event.layers)
            else:
                self._waiting.append((self._seen, event.last_step, dict(event.layers)))
            self._to_come -= 1
            while self._waiting and self._waiting[0][0] < self._seen - self._config.around + (not left):
                self._waiting.popleft()
        if left:
            self.remarkable(event.last_step)

    def remarkable(self, step: int) -> None:
        """Write the windows that wait, and those to come; `step` is what it is about."""
        self.write_waiting()
        self._to_come = max(self._to_come, self._config.around)
        self._statistics.mark(step)

    def write_waiting(self) -> None:
        """Write the rows that were kept, behind newer ones."""
        num = min(len(self._waiting), int(self._allowance))
        self._allowance -= num
        for _, step, layers in list(self._waiting)[len(self._waiting) - num :]:
            self._statistics.append(step, layers, late=True)
        self._waiting.clear()

    def went_back(self) -> None:
        """A branch begins: what waits belongs to the one before."""
        self._waiting.clear()
