"""When a checkpoint is due by the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import final

from trimtab.events import Save


@final
class SaveClock:
    """Due so many `minutes` after the last save, of whatever reason; without them never.

    Which step that is differs from rerun to rerun; a save changes nothing of the training.
    """

    def __init__(self, minutes: float | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._minutes, self._now = minutes, now
        self._last = now()

    def restart(self) -> None:
        """A save is begun."""
        self._last = self._now()

    def due(self) -> Save | None:
        """The save that is due; asked again it is still due, until there is one."""
        if self._minutes is None or self._now() - self._last < 60 * self._minutes:
            return None
        return Save(f"{self._minutes:g} minute{'' if self._minutes == 1 else 's'} after the last save")
