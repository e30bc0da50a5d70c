"""The clock of a machine that one has to itself: the processor's time, and the waiting that is planted.

The bank is made beside other programs. By the wall clock its steps of milliseconds would wait for those, and a sound
run would truly be starved of data. So durations in its logs are this process's own seconds.
"""

from __future__ import annotations

import time

_waited = [0.0]


def seconds() -> float:
    """Since some moment, as `time.perf_counter`."""
    return time.process_time() + _waited[0]


def wait(duration: float) -> None:
    """Sleep, and let the clock run meanwhile."""
    if duration > 0:
        time.sleep(duration)
        _waited[0] += duration


def install() -> None:
    """Let all of this process measure by this clock."""
    time.perf_counter = seconds  # type: ignore[assignment]
