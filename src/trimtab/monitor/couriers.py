"""Brings messages to where they go, from a thread of its own: who is slow or dead there never slows a run."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, final

Message = Mapping[str, Any]
"""What is known of an alert, as JSON values; `text` is it in a line."""
WAITING: Final = 100
"""Messages that wait at most; then the oldest is dropped."""
_LONGEST_PAUSE_SECONDS: Final = 60.0


class RefusedError(Exception):
    """A message will never be taken, so that trying again is of no use."""


def in_words(error: Exception) -> str:
    """What went wrong with a delivery."""
    if isinstance(error, RefusedError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


@final
class Courier:
    """Delivers one message after the other, each again and again while that fails for a reason that may pass."""

    def __init__(
        self, name: str, deliver: Callable[[Message], None], *, retries: int, first_pause_seconds: float = 1.0
    ) -> None:
        self.name = name
        self.delivered = self.dropped = 0
        """Messages that were delivered; that never were."""
        self.problem = ""
        """Why the newest that was not delivered was not."""
        self._deliver, self._retries, self._first_pause = deliver, retries, first_pause_seconds
        self._waiting: deque[Message] = deque()
        self._changed = threading.Condition()
        self._is_closed = self._is_busy = False
        self._gives_up_at: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"trimtab-alerts-{name}", daemon=True)
        self._thread.start()

    def send(self, message: Message) -> None:
        """Put `message` in the queue; returns at once."""
        with self._changed:
            if self._is_closed:
                return
            if len(self._waiting) >= WAITING:
                self._waiting.popleft()
                self.dropped += 1
                self.problem = self.problem or f"more than {WAITING} waited"
            self._waiting.append(message)
            self._changed.notify()

    def close(self, patience_seconds: float = 5.0) -> None:
        """Deliver what waits, but for no longer than that; closing again does nothing."""
        with self._changed:
            self._is_closed = True
            self._gives_up_at = time.monotonic() + patience_seconds
            self._changed.notify()
        self._thread.join(patience_seconds)
        with self._changed:  # what a thread that hangs still has is not delivered, as far as anyone can say
            self.dropped += len(self._waiting) + self._is_busy
            self._waiting.clear()
            self._is_busy = False
            if self.dropped and not self.problem:
                self.problem = "no answer before the run was over"

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._is_closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                message = self._waiting.popleft()
                self._is_busy = True
            self._try(message)

    def _try(self, message: Message) -> None:
        problem = ""
        for attempt in range(self._retries + 1):
            if attempt and not self._pause(attempt):
                break
            try:
                self._deliver(message)
            except RefusedError as error:
                problem = in_words(error)
                break
            except Exception as error:
                problem = in_words(error)
            else:
                self._settle(delivered=True)
                return
        self._settle(delivered=False, problem=problem)

    def _settle(self, *, delivered: bool, problem: str = "") -> None:
        with self._changed:
            if not self._is_busy:  # close() has given it up
                return
            self._is_busy = False
            self.delivered += delivered
            self.dropped += not delivered
            self.problem = self.problem if delivered else problem

    def _pause(self, attempt: int) -> bool:
        """Wait before another attempt; False where the end of the run leaves no time for one."""
        until = time.monotonic() + min(self._first_pause * 2 ** (attempt - 1), _LONGEST_PAUSE_SECONDS)
        with self._changed:
            while (left := until - time.monotonic()) > 0:
                if self._gives_up_at is not None and until > self._gives_up_at:
                    return False
                self._changed.wait(left)
        return True
