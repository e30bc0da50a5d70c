"""Sinks that sleep, raise, hang, or have no disk: the training does not notice, and is told once."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.events import Event, RunStarted, StepsEnded
from trimtab.monitor.sinks.queue import Queued
from trimtab.testing import check_monitor

EVENT = StepsEnded(1, 1, {"train/loss": np.ones(1)}, {})


class Sink:
    """Takes events as `take` does."""

    def __init__(self, take: Callable[[Event], object] = lambda event: None) -> None:
        self.take, self.taken, self.flushed, self.closed = take, [], 0, False  # type: ignore[var-annotated]

    def observe(self, event: Event) -> None:
        self.take(event)
        self.taken.append(event)

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None:
        self.closed = True


def told(caught: list[warnings.WarningMessage]) -> list[str]:
    return [str(one.message) for one in caught]


def refuse(event: Event) -> None:
    raise OSError(28, "No space left on device")


def test_all_events_arrive_in_their_order() -> None:
    sink = Sink()
    queued = Queued("mine", lambda: sink)
    events = [StepsEnded(step, step, {}, {}) for step in range(1, 501)]
    for event in events:
        queued.observe(event)
    queued.close()
    assert sink.taken == events
    assert sink.closed
    queued.observe(EVENT)
    queued.close()
    assert len(sink.taken) == 500


@pytest.mark.parametrize("kind", ["sleeps", "raises", "hangs", "full disk"])
def test_a_bad_sink_costs_the_loop_nothing(kind: str) -> None:
    """10^5 events: the 99th percentile of a call is at most 200 µs, whatever the sink does."""
    released = threading.Event()
    takes: dict[str, Callable[[Event], object]] = {
        "sleeps": lambda event: time.sleep(0.01),
        "raises": lambda event: {}["nothing"],  # type: ignore[misc]
        "hangs": lambda event: bool(released.wait(60)),
        "full disk": _writes_to_full_disk,
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        queued = Queued(kind, lambda: Sink(takes[kind]), max_failures=4, first_wait_seconds=0.001)
        seconds = np.empty(100_000)
        for place in range(len(seconds)):
            begun = time.perf_counter()
            queued.observe(EVENT)
            seconds[place] = time.perf_counter() - begun
        waiting = queued.waiting
        begun = time.perf_counter()
        queued.close(0.2)
        closing = time.perf_counter() - begun
        released.set()
    assert np.quantile(seconds, 0.99) <= 200e-6
    assert waiting <= 1_000
    assert closing < 2.0
    if kind in ("raises", "full disk"):
        assert queued.left_out
        assert sum("is left out of this run from here on" in line for line in told(caught)) == 1
    else:
        assert queued.dropped > 90_000
        assert sum("the oldest are dropped" in line for line in told(caught)) == 1
        assert any(f"{queued.dropped:,} events were dropped" in line for line in told(caught))
        assert any("it was not done in 0.2 s" in line for line in told(caught))


def _writes_to_full_disk(event: Event) -> None:
    with open("/dev/full", "w") as file:
        file.write("x")


def test_the_newest_are_kept_of_too_many() -> None:
    going = threading.Event()
    sink = Sink(lambda event: bool(going.wait(10)))
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        queued = Queued("slow", lambda: sink, queue_events=10)
        queued.observe(RunStarted(0, 1, 0, None, 100))
        while queued.waiting:
            time.sleep(0.001)
        for step in range(1, 101):
            queued.observe(StepsEnded(step, step, {}, {}))
        assert queued.dropped == 90
        going.set()
        queued.close()
    assert [event.last_step for event in sink.taken if isinstance(event, StepsEnded)] == list(range(91, 101))


def test_what_fails_once_is_tried_again_and_nothing_is_lost() -> None:
    failed: list[Event] = []

    def take(event: Event) -> None:
        if len(failed) < 3 and event not in failed:
            failed.append(event)
            raise ConnectionError("later")

    sink = Sink(take)
    queued = Queued("shaky", lambda: sink, max_failures=3, first_wait_seconds=0.001)
    events = [StepsEnded(step, step, {}, {}) for step in range(1, 6)]
    for event in events:
        queued.observe(event)
    queued.close()
    assert sink.taken == events
    assert queued.refused == 0
    assert not queued.left_out


def test_one_event_that_cannot_be_taken_does_not_end_the_sink() -> None:
    def take(event: Event) -> None:
        if isinstance(event, StepsEnded) and event.last_step == 3:
            raise ValueError("three")

    sink = Sink(take)
    queued = Queued("picky", lambda: sink, first_wait_seconds=0.001)
    for step in range(1, 6):
        queued.observe(StepsEnded(step, step, {}, {}))
    with pytest.warns(UserWarning, match="1 events were not taken"):
        queued.close()
    assert [event.last_step for event in sink.taken] == [1, 2, 4, 5]


@pytest.mark.parametrize("where", ["load", "make", "flush", "close"])
def test_no_call_of_a_sink_reaches_the_training(where: str) -> None:
    def fail() -> Any:
        raise RuntimeError(f"token hf_abcdefghijklmnopqrstuvwx in {where}")

    class Fails(Sink):
        def flush(self) -> None:
            if where == "flush":
                fail()

        def close(self) -> None:
            if where == "close":
                fail()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        queued = Queued(
            "bad",
            lambda: fail() if where == "make" else Fails(),
            load=fail if where == "load" else lambda: None,
            max_failures=2,
            first_wait_seconds=0.001,
        )
        queued.observe(EVENT)
        if where == "flush":
            time.sleep(1.2)
        queued.close(5.0)
    if where != "flush":
        assert any(f"in {where}" in line for line in told(caught))
    assert not any("hf_abc" in line for line in told(caught))


def test_warnings_that_were_made_errors_stay_in_the_thread() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        queued = Queued("bad", lambda: Sink(refuse), max_failures=1, queue_events=1)
        for _ in range(50):
            queued.observe(EVENT)
        queued.close(2.0)
    assert queued.left_out


def test_it_is_a_monitor() -> None:
    opened: list[Queued] = []

    def make() -> Queued:
        opened.append(Queued("mine", Sink))
        return opened[-1]

    check_monitor(make)
    for one in opened:
        one.close()


def test_a_full_disk_leaves_a_file_that_can_be_read(tmp_path: Path) -> None:
    """RLIMIT_FSIZE in a process of its own: the file ends with the last whole record."""
    import subprocess
    import sys

    pytest.importorskip("tensorboard")
    script = f"""
import resource, signal, warnings
from pathlib import Path
import numpy as np
from trimtab.events import RunStarted, StepsEnded
from trimtab.monitor.sinks.queue import Queued
from trimtab.monitor.sinks.tensorboard import TensorBoard
warnings.simplefilter("always")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
folder = Path({str(tmp_path)!r})
sink = Queued("tensorboard", lambda: TensorBoard(folder / "tb", folder, folder / "record.jsonl"),
              max_failures=3, first_wait_seconds=0.01)
sink.observe(RunStarted(0, 1, 0, None, 100))
for step in range(1, 200):
    sink.observe(StepsEnded(step, step, {{"train/loss": np.ones(1)}}, {{}}))
sink.close()
assert sink.left_out
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.count("is left out of this run from here on: OSError: [Errno 27] File too large") == 1
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = (tmp_path / "tb").iterdir()
    assert 3_900 < file.stat().st_size <= 4_096
    read = EventAccumulator(str(tmp_path / "tb"), size_guidance={"scalars": 0}).Reload()
    steps = [one.step for one in read.Scalars("train/loss")]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) > 20
