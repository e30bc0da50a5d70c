"""How far a large file is read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Progress = Callable[[float], None]
"""Hears which part of a file is read, from 0 to 1."""


@dataclass(slots=True)
class Meter:
    """Counts the bytes that were read."""

    progress: Progress
    num_bytes: int
    """Of the whole."""
    num_read: int = 0

    def add(self, num_bytes: int) -> None:
        """Count bytes, and tell the part."""
        self.num_read += num_bytes
        self.progress(min(1.0, self.num_read / max(self.num_bytes, 1)))


def meter_of(progress: Progress | None, paths: Sequence[Path]) -> Meter | None:
    """One for files; None where nobody listens, or they cannot be asked for their size."""
    if progress is None:
        return None
    with contextlib.suppress(OSError):
        return Meter(progress, sum(path.stat().st_size for path in paths))
    return None
