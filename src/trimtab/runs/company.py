"""Other programs on the machine: how much of it they take, and how threads wait beside them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import MutableMapping
from typing import Final, final

import psutil

SPIN_COUNT: Final = "1000"
"""Turns of GNU OpenMP's waiting loop before a thread sleeps, some microseconds. Its own 300,000 are milliseconds."""
_WAYS_OF_WAITING: Final = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
_WORTH_TELLING: Final = 0.25
"""Cores that others may take without a word."""


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Let torch's threads sleep when they have waited a little, so that others get the core; whether that was set.

    torch's GNU OpenMP reads it when it is loaded, so it must be called before torch is imported. What the user
    set stands. The results are the same bits (docs/benchmarks.md has the times).
    """
    if "torch" in sys.modules or any(name in environment for name in _WAYS_OF_WAITING):
        return False
    environment["GOMP_SPINCOUNT"] = SPIN_COUNT
    return True


@final
class OtherPrograms:
    """What other programs take of the processor, from when this is made."""

    def __init__(self) -> None:
        self._begun, self._before = time.perf_counter(), _seconds_of_others()

    def cores(self) -> float:
        """How many cores they have kept busy."""
        seconds = time.perf_counter() - self._begun
        return max(0.0, _seconds_of_others() - self._before) / seconds if seconds > 0 else 0.0

    def warning(self, threads: int) -> str | None:
        """A line for people when they leave less than `threads` need."""
        there, taken = os.cpu_count() or 1, self.cores()
        if taken < _WORTH_TELLING or there - taken >= threads - _WORTH_TELLING:
            return None
        return (
            f"the machine is busy: other programs take {taken:.1f} of its {there} cores, so steps take longer "
            "than they would alone"
        )


def _seconds_of_others() -> float:
    times = psutil.cpu_times()
    own = psutil.Process().cpu_times()
    others = times.user + times.system - own.user - own.system
    return float(others + getattr(times, "nice", 0.0))
