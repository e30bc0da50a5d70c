"""Adaptive logging: the values of layers now and then, and all of them around a window that is remarkable.

Source: own. A band is the forecast from the windows before, give or take `threshold` robust standard deviations of how
the metric usually changes from window to window. Nothing here changes what is measured.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

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


@final
class Band:
    """What one metric is expected to be in the next window, from its windows so far.

    The level is the median of the last five windows, moved on by the median change; the width comes from the median
    absolute deviation of the changes, and inside of a window from that of its steps.
    """

    def __init__(self, threshold: float, memory: int) -> None:
        self._threshold = threshold
        self._means: deque[float] = deque(maxlen=memory)
        self._scatter: deque[float] = deque(maxlen=memory)

    def leaves(self, values: NDArray[np.float64]) -> bool:
        """Whether the values of a window [steps] do not fit those before; they belong to those from here on."""
        finite = values[np.isfinite(values)]
        is_left = len(finite) < len(values)
        if not len(finite):
            return is_left
        mean = float(finite.mean())
        if len(self._means) >= LEAST_WINDOWS:
            means = np.array(self._means)
            changes = np.diff(means)
            usual = float(np.median(changes))
            expected = float(np.median(means[-_RECENT:])) + usual * (min(_RECENT, len(means)) + 1) / 2
            width = max(_SIGMA * float(np.median(np.abs(changes - usual))), _LEAST * abs(expected))
            scatter = max(width, _SIGMA * float(np.median(self._scatter)))
            is_left = is_left or abs(mean - expected) > self._threshold * width
            is_left = is_left or float(np.abs(finite - expected).max()) > self._threshold * scatter
        self._means.append(mean)
        self._scatter.append(float(np.median(np.abs(finite - np.median(finite)))))
        return is_left


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

    def window(self, event: StepsEnded) -> None:
        """A window is over: write its row, or keep it."""
        left = False
        for name, band in self._bands.items():
            values = event.per_step.get(name)
            if values is None and name in event.values:
                values = np.array([event.values[name]])
            if values is not None:
                left = band.leaves(np.asarray(values, np.float64)) or left
        if event.layers:
            self._seen += 1
            if self._to_come > 0 or left or self._seen % self._config.calm_every == 0:
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
        for _, step, layers in self._waiting:
            self._statistics.append(step, layers, late=True)
        self._waiting.clear()

    def went_back(self) -> None:
        """A branch begins: what waits belongs to the one before."""
        self._waiting.clear()
