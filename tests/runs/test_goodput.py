"""Where the time of a run went: laws, and simulated runs whose every second is known."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.events import CheckpointSaved, EvaluationEnded, Event, RunEnded, RunStarted, StepsEnded
from trimtab.runs import RunDirectory
from trimtab.runs.goodput import CAUSES, Goodput, describe_goodput, goodput, goodput_of, shares
from trimtab.runs.record import RecordWriter, decode_line, encode_line, lines_of, read_record
from trimtab.runs.summary import render, summarize


def line(event: Event, time: float, branch: int = 0) -> dict[str, Any]:
    """As a reader gives it."""
    (content,) = lines_of(event)
    content = {"schema": 1, "sequence": 1, "branch": branch, "time": time} | content
    decoded = decode_line(encode_line(content))
    assert decoded is not None
    return decoded


def window(first: int, last: int, seconds: float = 1.0, waited: float = 0.0, skipped: float = 0.0) -> StepsEnded:
    num = last - first + 1
    per_step = {"step_seconds": seconds, "data_seconds": waited, "skipped": skipped}
    return StepsEnded(first, last, {name: np.full(num, value) for name, value in per_step.items()}, {})


def started(step: int, attempt: int, branch: int, start: float = 0.0, compiling: float = 0.0) -> RunStarted:
    facts = {"start_seconds": start, "plan": {"compile": {"seconds": compiling}}}
    return RunStarted(step, attempt, branch, step if attempt > 1 or branch else None, 100, facts)


def ended(step: int, status: Any = "finished") -> RunEnded:
    return RunEnded(step, status, "done", None, None, None, 1.0)


def told(found: Goodput | None) -> dict[str, float]:
    assert found is not None
    assert math.isclose(math.fsum(found.seconds.values()), found.elapsed_seconds, abs_tol=1e-9)
    return {cause: round(seconds, 6) for cause, seconds in found.seconds.items() if seconds}


def test_one_attempt_by_hand() -> None:
    lines = [
        line(started(0, 1, 0, start=9.0, compiling=5.0), 100.0),
        line(window(1, 10, 1.0, 0.25), 110.0),
        line(EvaluationEnded(10, {}, 3.0), 113.0),
        line(CheckpointSaved(10, "x", 1, 9.0, "y", 0.5), 113.5),
        line(window(11, 12, 1.0, skipped=1.0), 115.5),
        line(ended(12), 116.0),
    ]
    assert told(goodput(lines)) == {
        "productive": 7.5,
        "start": 4.0,
        "compile": 5.0,
        "data": 2.5,
        "evaluation": 3.0,
        "checkpoint": 0.5,
        "skipped": 2.0,
        "other": 0.5,
    }


def test_a_kill_by_hand() -> None:
    """Killed after 25 of which 20 were saved and 20 told; the next attempt tells 11 to 20 again, which it has saved."""
    lines = [
        line(started(0, 1, 0, start=1.0), 100.0),
        line(window(1, 10), 121.0),
        line(CheckpointSaved(20, "x", 1, 0.0, "y"), 121.0),
        line(EvaluationEnded(24, {}, 2.0), 127.0),
        line(started(20, 2, 1, start=2.0), 140.0),
        line(window(11, 20), 151.0, 1),
        line(window(21, 30), 152.0, 1),
        line(ended(30), 152.0, 1),
    ]
    for content in lines[4:]:
        content["branch"] = 1
    found = goodput(lines)
    # 28 s in the first attempt: start 1, steps 1 to 20, an evaluation that is taken back, and 5 s nobody told of.
    assert told(found) == {"productive": 30.0, "start": 3.0, "redone": 2.0 + 5.0, "other": 2.0}
    assert found is not None
    assert (found.down_seconds, found.attempts) == (11.0, 2)
    assert found.productive == pytest.approx(30 / 42)


def test_until_it_goes_on_what_was_not_saved_counts_as_lost() -> None:
    lines = [line(started(0, 1, 0), 0.0), line(window(1, 10), 10.0), line(window(11, 20), 23.0)]
    assert told(goodput(lines, resumes_from=15)) == {"productive": 15.0, "redone": 8.0}
    assert told(goodput(lines, running=True)) == {"productive": 20.0, "other": 3.0}


def test_a_rollback_in_one_attempt() -> None:
    lines = [
        line(started(0, 1, 0), 0.0),
        line(window(1, 10), 10.0),
        line(window(11, 20), 20.0),
        line(started(10, 1, 1), 21.0, 1),
        line(window(11, 20, 2.0), 41.0, 1),
        line(ended(20), 41.0, 1),
    ]
    found = goodput(lines)
    assert told(found) == {"productive": 30.0, "redone": 10.0, "other": 1.0}
    assert found is not None
    assert found.attempts == 1


def test_the_lock_tells_how_long_a_killed_attempt_lived() -> None:
    first, second = started(0, 1, 0), started(0, 2, 1, start=1.0)
    facts = dict(second.facts) | {"previous_heartbeat_seconds": 30.0}
    lines = [
        line(first, 0.0),
        line(window(1, 10), 10.0),
        line(RunStarted(0, 2, 1, None, 100, facts), 51.0, 1),
        line(window(1, 10), 61.0, 1),
        line(ended(10), 61.0, 1),
    ]
    found = goodput(lines)
    assert told(found) == {"productive": 10.0, "start": 1.0, "redone": 30.0}
    assert found is not None
    assert found.down_seconds == 20.0


def test_a_record_without_times_has_none() -> None:
    assert goodput([]) is None
    assert goodput([line(started(0, 1, 0), 0.0), line(StepsEnded(1, 1, {"train/loss": np.ones(1)}, {}), 1.0)]) is None


@given(st.dictionaries(st.sampled_from(sorted(CAUSES)), st.floats(0, 1e7), min_size=1))
def test_shares_add_up_and_are_near(seconds: dict[str, float]) -> None:
    parts = shares(seconds)
    whole = sum(seconds.values())
    if whole <= 0:
        assert parts == {}
        return
    assert sum(round(10 * part) for part in parts.values()) == 1000
    assert all(abs(parts[name] - 100 * seconds[name] / whole) <= 0.1 + 1e-9 for name in seconds)


class Simulated:
    """A run on a clock of its own, which books the truth beside the record."""

    def __init__(self, seed: int, clock_jumps: bool) -> None:
        self.order, self.now, self.jump = random.Random(seed), 1000.0, 0.0
        self.clock_jumps = clock_jumps
        self.lines: list[dict[str, Any]] = []
        self.truth = dict.fromkeys(CAUSES, 0.0)
        self.down = 0.0
        self.work: list[tuple[int, str, float]] = []
        """Step, cause and seconds of what a kill may take back."""
        self.branch = 0
        self.saved: tuple[int, int] = (0, 1)
        """Step of the newest checkpoint, and the first step that it has not told yet."""

    def tell(self, event: Event) -> None:
        if self.clock_jumps and self.order.random() < 0.05:
            self.jump += self.order.uniform(-500, 500)
        self.lines.append(line(event, round(self.now + self.jump, 3), self.branch))

    def attempt(self, number: int, dies: bool) -> int:
        order = self.order
        step, untold = self.saved
        pause = order.uniform(0, 20) if number > 1 else 0.0
        self.now += pause
        self.down += pause
        start, compiling = order.uniform(2, 4), order.choice([0.0, 1.5])
        self.now += start
        self.truth["start"] += start - compiling
        self.truth["compile"] += compiling
        self.tell(started(step, number, self.branch, start, compiling))
        times = {at: seconds for at, cause, seconds in self.work if cause == "step" and at > untold - 1}
        last = step + order.randrange(5, 60)
        while step < last:
            step += 1
            seconds = order.uniform(0.1, 2)
            self.now += seconds
            times[step] = seconds
            self.work.append((step, "step", seconds))
            if step % 7 == 0:
                took = order.uniform(0, 3)
                self.now += took
                self.work.append((step, "evaluation", took))
                self.tell(EvaluationEnded(step, {}, took))
            if step % 10 == 0 and step - 9 > untold:  # the window before this one
                self.tell_steps(untold, step - 10, times)
                untold = step - 9
            if step % 13 == 0:
                took = order.uniform(0, 1)
                self.saved = (step, untold)
                self.now += took
                self.truth["checkpoint"] += took
                self.tell(CheckpointSaved(step, "x", 1, took, "y", took))
        if dies:
            self.work_is_lost()
        else:
            self.tell_steps(untold, step, times)
            self.tell(ended(step))
        return step

    def tell_steps(self, first: int, last: int, times: dict[int, float]) -> None:
        if first <= last:
            seconds = np.array([times[at] for at in range(first, last + 1)])
            self.tell(StepsEnded(first, last, {"step_seconds": seconds}, {}))

    def work_is_lost(self) -> None:
        step = self.saved[0]
        self.truth["redone"] += sum(seconds for at, _, seconds in self.work if at > step)
        self.work = [one for one in self.work if one[0] <= step]
        self.branch += 1

    def finish(self) -> None:
        for _, cause, seconds in self.work:
            self.truth["productive" if cause == "step" else cause] += seconds


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_the_account_is_the_truth_but_for_what_nobody_told(seed: int, num_attempts: int) -> None:
    run = Simulated(seed, clock_jumps=False)
    for number in range(1, num_attempts + 1):
        run.attempt(number, dies=number < num_attempts)
    run.finish()
    found = goodput(run.lines)
    seconds = told(found)
    assert found is not None
    for cause in ("productive", "start", "compile", "evaluation", "checkpoint"):
        assert seconds.get(cause, 0.0) == pytest.approx(run.truth[cause], abs=1e-3)  # the record keeps 7 digits
    # From its last line to the kill nobody knows how long an attempt lived: that is booked as down time.
    assert seconds.get("redone", 0.0) <= run.truth["redone"] + 0.01
    whole = sum(run.truth.values()) + run.down
    assert found.elapsed_seconds + found.down_seconds == pytest.approx(whole, abs=0.02)
    assert seconds.get("other", 0.0) < 0.01


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 6), st.booleans(), st.data())
def test_no_part_is_negative_and_they_add_up_whatever_the_clock_does_and_however_much_is_missing(
    seed: int, num_attempts: int, jumps: bool, data: st.DataObject
) -> None:
    run = Simulated(seed, clock_jumps=jumps)
    for number in range(1, num_attempts + 1):
        run.attempt(number, dies=data.draw(st.booleans()))
        if not run.lines:
            return
        run.branch = max(one["branch"] for one in run.lines) + 1
    missing = data.draw(st.sets(st.integers(0, len(run.lines) - 1), max_size=10))
    lines = [one for index, one in enumerate(run.lines) if index not in missing]
    found = goodput(lines, resumes_from=data.draw(st.none() | st.integers(0, 200)), running=data.draw(st.booleans()))
    if found is None:
        assert not any(one["event"] == "StepsEnded" for one in lines)
        return
    assert set(found.seconds) == set(CAUSES)
    assert all(seconds >= 0 for seconds in found.seconds.values())
    assert found.down_seconds >= 0
    assert math.isclose(math.fsum(found.seconds.values()), found.elapsed_seconds)
    assert 0 <= found.productive <= 1
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))


@pytest.fixture
def killed(tmp_path: Path) -> RunDirectory:
    """Killed after step 20, without a checkpoint."""
    run = RunDirectory.create(tmp_path, "killed")
    clock: Callable[[], float] = iter([4.0, 14.0, 24.0, 30.0]).__next__
    writer = RecordWriter(run.record, now=clock)
    for event in (started(0, 1, 0, start=4.0), window(1, 10), window(11, 20), EvaluationEnded(20, {}, 6.0)):
        writer.append(*lines_of(event))
    writer.close()
    return run


def test_it_is_shown(killed: RunDirectory) -> None:
    """Nothing was saved, so all but the start is to be done again, and the page says so."""
    found = goodput_of(killed)
    assert told(found) == {"start": 4.0, "redone": 26.0}
    summary = summarize(killed)
    assert found is not None
    assert summary["goodput"] == found.to_json()
    assert "time        30s: productive 0.0 %, redone 86.7 %, start 13.3 %" in render(summary)
    assert read_record(killed.record)


def test_several_attempts_in_a_line() -> None:
    found = Goodput(dict.fromkeys(CAUSES, 0.0) | {"productive": 60.0, "redone": 3.0}, 63.0, 7.0, 2)
    assert (
        describe_goodput(found.to_json())
        == "1m 03s in 2 attempts: productive 95.2 %, redone 4.8 %; down 7.0s between them"
    )
