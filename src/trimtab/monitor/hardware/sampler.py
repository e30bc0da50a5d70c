"""A thread that reads the machine every few seconds, and hands what it read to the windows of the run.

Training never waits for it: a window takes what has been read by then. A source that fails is passed over, and after
three failures in a row it is read no more.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Protocol, Self, final

JOULES: Final = "joules"
"""What a source calls the energy spent since its reading before; it is summed, other values are averaged."""
_JOULES_PER_WH: Final = 3_600.0
_FAILURES: Final = 3
_FIRST_SECONDS: Final = 1.0
"""Until the first reading, so that short runs have one, and its rates are those of more than a moment."""
_END_SECONDS: Final = 2.0
"""For a reading that is under way when the run ends; a driver that hangs is left behind."""


class Source(Protocol):
    """Something that can be read."""

    def read(self) -> Mapping[str, float]:
        """Metric name to value, now or since the call before. What is not known is left out."""
        ...


@final
class Sampler:
    """A gauge of windows. As a context manager it reads every `every_seconds` for as long as it is open.

    A window gets the means of the readings that fell into it, if there were any; the energy that was spent since those
    before, as `hardware/energy_wh`; and, of the targets trained since then, `hardware/tokens_per_wh`.
    """

    def __init__(
        self, sources: Sequence[Source], every_seconds: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sources, self._every_seconds, self._clock = list(sources), every_seconds, clock
        self._failures = [0] * len(self._sources)
        self._lock = threading.Lock()
        self._readings: list[dict[str, float]] = []
        self._joules: float | None = None
        self._tokens = 0.0
        self._last: float | None = None
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._sources and self._every_seconds > 0:
            self._thread = threading.Thread(target=self._run, name="trimtab-hardware", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        if self._thread is not None:
            self._thread.join(_END_SECONDS)
            self._thread = None

    def sample(self) -> None:
        """Read every source once."""
        begun, busy = self._clock(), time.thread_time()
        values: dict[str, float] = {}
        joules: list[float] = []
        for index, source in enumerate(self._sources):
            if self._failures[index] >= _FAILURES:
                continue
            try:
                read = dict(source.read())
            except Exception as error:
                self._failures[index] += 1
                if self._failures[index] == _FAILURES:
                    warnings.warn(f"{type(source).__name__} is read no more: {error!r}", stacklevel=2)
                continue
            self._failures[index] = 0
            if JOULES in read:
                joules.append(read.pop(JOULES))
            values |= read
        if self._last is not None and begun > self._last:
            values["hardware/sampling_percent"] = 100.0 * (time.thread_time() - busy) / (begun - self._last)
        self._last = begun
        with self._lock:
            self._readings.append(values)
            if joules:
                self._joules = (self._joules or 0.0) + sum(joules)

    def close(self, num_steps: int, seconds: float, tokens: float) -> Callable[[], Mapping[str, float]]:
        """The values of a window that ends; see `training.contracts.Gauge`."""
        with self._lock:
            readings, self._readings = self._readings, []
            joules, self._joules = self._joules, None
        self._tokens += tokens
        values = _means(readings)
        if joules is not None:
            values["hardware/energy_wh"] = hours = joules / _JOULES_PER_WH
            if hours > 0:
                values["hardware/tokens_per_wh"] = self._tokens / hours
                self._tokens = 0.0
        return lambda: values

    def _run(self) -> None:
        wait = min(_FIRST_SECONDS, self._every_seconds)
        while not self._ends.wait(wait):
            self.sample()
            wait = self._every_seconds


def _means(readings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for reading in readings for name in reading)
    found = {name: [reading[name] for reading in readings if name in reading] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items()}
