"""A sink behind a bounded queue and a thread: whatever it does, the training goes on as without it."""

from __future__ import annotations

import queue
import threading
import time
import warnings
from collections.abc import Callable
from typing import Final, final

from trimtab.config.secrets import hide
from trimtab.events import Event
from trimtab.monitor.sinks.contract import Sink

_IDLE_SECONDS: Final = 1.0
"""So long without an event, and the sink is flushed; while they keep coming, it is every `_FLUSH_SECONDS`."""
_FLUSH_SECONDS: Final = 5.0
_TRIES: Final = 2
"""An event that the sink does not take is tried once more: the next one may be taken."""
_FIRST_WAIT_SECONDS: Final = 0.5
_LONGEST_WAIT_SECONDS: Final = 30.0


@final
class Queued:
    """A monitor that only puts events into a queue; a daemon thread makes the sink and gives them to it.

    `make` is called at the first event, in the thread; `load` before, to import what takes long. Of more than
    `queue_events` the oldest are dropped, and counted. After `max_failures` failures on end, with ever longer waits
    between them, the sink is left out: one warning, and nothing is kept for it any more.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Sink],
        *,
        load: Callable[[], object] = lambda: None,
        queue_events: int = 1_000,
        max_failures: int = 6,
        first_wait_seconds: float = _FIRST_WAIT_SECONDS,
    ) -> None:
        self.name = name
        self.dropped = 0
        """Events that did not fit into the queue."""
        self.refused = 0
        """Events that the sink did not take."""
        self._make, self._load = make, load
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._most, self._max_failures = queue_events, max_failures
        self._first_wait = first_wait_seconds
        self._failures = 0
        self._left_out = self._has_ended = self._tells = False
        self._ending = threading.Event()
        self._sink: Sink | None = None
        self._thread = threading.Thread(target=self._run, name=f"trimtab-sink-{name}", daemon=True)
        self._thread.start()

    @property
    def left_out(self) -> bool:
        """Whether it failed so often that nothing is given to it any more."""
        return self._left_out

    @property
    def waiting(self) -> int:
        """Events that it has not taken yet."""
        return 0 if self._left_out else self._queue.qsize()

    def observe(self, event: Event) -> None:
        """Keep `event` for the thread; never waits for it."""
        if self._left_out or self._ending.is_set():
            return
        if self._queue.qsize() >= self._most:
            try:
                self._queue.get_nowait()
                self.dropped += 1
            except queue.Empty:  # the thread took it just now
                pass
            if not self._tells:
                self._tells = True
                _warn(
                    f"{self.name} is slower than the run: {self._most:,} events wait for it, and the oldest are dropped"
                )
        self._queue.put(event)

    def close(self, flush_seconds: float = 10.0) -> None:
        """Wait at most so long until all is taken, and say what was not; closing again does nothing."""
        if self._ending.is_set():
            return
        self._ending.set()
        self._queue.put(None)
        self._thread.join(flush_seconds)
        said = []
        if self._thread.is_alive() and not self._left_out:
            left = max(self._queue.qsize() - 1, 0)
            self._left_out = True  # what it takes from here on is not waited for
            said.append(f"it was not done in {flush_seconds:g} s, and {left:,} events were left")
        if self.dropped:
            said.append(f"{self.dropped:,} events were dropped, as it was slower than the run")
        if self.refused:
            said.append(f"{self.refused:,} events were not taken, as it failed")
        if said:
            _warn(f"{self.name}: {'; '.join(said)}; the record of the run has all of them")

    def _run(self) -> None:
        try:
            self._load()
        except Exception as error:
            self._leave_out(error)
            return
        flushed = time.monotonic()
        has_new = False
        while not self._left_out:
            try:
                event = self._queue.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                if has_new:
                    has_new, flushed = self._flush(), time.monotonic()
                continue
            if event is None:
                break
            self._give(event)
            has_new = True
            if time.monotonic() - flushed > _FLUSH_SECONDS:
                has_new, flushed = self._flush(), time.monotonic()
        if self._sink is not None and not self._left_out:
            try:
                self._sink.close()
            except Exception as error:
                _warn(f"{self.name} could not be closed: {_said(error)}")

    def _give(self, event: Event) -> None:
        for _ in range(_TRIES):
            try:
                if self._sink is None:
                    self._sink = self._make()
                self._sink.observe(event)
            except Exception as error:
                if self._failed(error):
                    return
            else:
                self._failures = 0
                return
        self.refused += 1

    def _flush(self) -> bool:
        """Flush it; what that raises is no lost event, but a failure. Gives whether there is still something new."""
        if self._sink is None:
            return False
        try:
            self._sink.flush()
        except Exception as error:
            self._failed(error)
            return True
        return False

    def _failed(self, error: Exception) -> bool:
        """Count it, and wait a while, less when the run is ending; whether it was the last that is borne."""
        self._failures += 1
        if self._failures >= self._max_failures:
            self.refused += 1
            self._leave_out(error)
            return True
        self._ending.wait(min(self._first_wait * 2 ** (self._failures - 1), _LONGEST_WAIT_SECONDS))
        return False

    def _leave_out(self, error: Exception) -> None:
        self._left_out = True
        while True:
            try:
                self.refused += self._queue.get_nowait() is not None
            except queue.Empty:
                break
        _warn(f"{self.name} failed and is left out of this run from here on: {_said(error)}")


def _said(error: Exception) -> str:
    return hide(f"{type(error).__name__}: {error}".splitlines()[0][:300])


def _warn(text: str) -> None:
    """Tell, whatever was made of warnings: an error of them is none of the training's."""
    try:
        warnings.warn(text, stacklevel=3)
    except Exception:
        return
