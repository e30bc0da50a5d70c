"""How much a logger may write: so many bytes an hour, all of which may come at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, final

_HOUR_SECONDS: Final = 3600.0


@final
class Allowance:
    """Bytes that may be written now; what was taken grows again, so that no hour has more than twice the rate."""

    def __init__(self, bytes_per_hour: int, now: Callable[[], float] = time.monotonic) -> None:
        self._most, self._now = float(bytes_per_hour), now
        self._left, self._at = self._most, now()

    @property
    def left(self) -> float:
        """Bytes that may be written now."""
        now = self._now()
        self._left = min(self._most, self._left + (now - self._at) * self._most / _HOUR_SECONDS)
        self._at = now
        return self._left

    def take(self, num_bytes: int) -> None:
        """Book what was written."""
        self._left = self.left - num_bytes
