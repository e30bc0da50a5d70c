"""Other programs on the machine: how much of it they take, and how threads wait beside them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, MutableMapping
from typing import Final, final

import psutil

from trimtab.runs.environment import usable_cores

SPIN_COUNT: Final = "1000"
"""Turns of GNU OpenMP's waiting loop before a thread sleeps, some microseconds. Its own 300,000 are milliseconds."""
_WAYS_OF_WAITING: Final = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
_SPINS: Final = (
    f"; torch was loaded before that could be seen, so its waiting threads spin: start with GOMP_SPINCOUNT={SPIN_COUNT}"
)
WORTH_TELLING: Final = 0.25
"""Cores that others may take without a word."""
_LEAST_SECONDS: Final = 0.2
"""The system counts processor time in hundredths of a second."""


@final
class OtherPrograms:
    """What other programs take of the processor, from when this is made."""

    def __init__(self) -> None:
        self._begun, self._before = time.perf_counter(), _seconds_of_others()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.perf_counter() - self._begun

    def cores(self) -> float:
        """How many cores they have kept busy."""
        taken = max(0.0, _seconds_of_others() - self._before)
        return taken / self.seconds if self.seconds > 0 else 0.0

    def warning(self, threads: int) -> str | None:
        """A line for people when they leave less than `threads` need."""
        there, taken = os.cpu_count() or 1, self.cores()
        if taken < WORTH_TELLING or there - taken >= threads - WORTH_TELLING:
            return None
        return (
            f"the machine is busy: other programs take {taken:.1f} of its {there} cores, so steps take longer "
            "than they would alone" + (_SPINS if "torch" in sys.modules and _is_unset(os.environ) else "")
        )


def wait_briefly_in_company(others: OtherPrograms, environment: MutableMapping[str, str] = os.environ) -> bool:
    """On a busy machine, let torch's threads sleep when they have waited a little; whether that was set.

    torch's GNU OpenMP reads it when it is loaded, so it must be called before torch is imported. What the user
    set stands. It changes no result, only times; what it costs alone is not known (docs/experiments.md).
    """
    if "torch" in sys.modules or not _is_unset(environment):
        return False
    time.sleep(max(0.0, _LEAST_SECONDS - others.seconds))
    if others.warning(usable_cores()) is None:
        return False
    environment["GOMP_SPINCOUNT"] = SPIN_COUNT
    return True


def _is_unset(environment: Mapping[str, str]) -> bool:
    return not any(name in environment for name in _WAYS_OF_WAITING)


def _seconds_of_others() -> float:
    times = psutil.cpu_times()
    own = psutil.Process().cpu_times()
    others = times.user + times.system - own.user - own.system
    return float(others + getattr(times, "nice", 0.0))
