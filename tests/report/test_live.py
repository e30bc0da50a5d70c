"""What `trimtab top` shows: frames of runs that go on, are over, are damaged, or have not begun."""

from __future__ import annotations

import io
import json
import math
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rich.console

from trimtab.events import (
    Adjust,
    AlertRaised,
    DecisionTaken,
    EvaluationEnded,
    Event,
    FindingsChanged,
    RunEnded,
    RunStarted,
    Save,
    StepsEnded,
)
from trimtab.report.live import POINTS, Follower
from trimtab.report.live_frame import render_run, render_runs, sparkline, without_unicode
from trimtab.runs import Lock, RecordWriter, RunDirectory, event_to_json

FINDING = {"code": "overfitting", "severity": "warning", "cause": "by \x1b[2Jheart", "remedies": [{"summary": "stop"}]}


class Clock:
    """Time as the record has it."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Writing:
    """A run that is written event by event."""

    def __init__(self, path: Path, branch: int = 0, clock: Clock | None = None) -> None:
        path.mkdir(exist_ok=True)
        (path / "config.yaml").write_text("name: a\n")
        self.run, self.clock = RunDirectory(path), clock or Clock()
        self.writer = RecordWriter(self.run.record, branch, now=self.clock)

    def tell(self, *events: Event) -> None:
        self.writer.append(*map(event_to_json, events))

    def steps(self, first: int, losses: list[float], seconds: float = 1.0, **values: float) -> None:
        self.clock.now += seconds * len(losses)
        arrays = {"train/loss": np.array(losses), "grad_norm": np.full(len(losses), 0.5)}
        self.tell(StepsEnded(first, first + len(losses) - 1, arrays, {"tokens_per_second": 100.0} | values))


def started(step: int = 0, attempt: int = 1, branch: int = 0) -> RunStarted:
    return RunStarted(step, attempt, branch, step or None, 100)


def shown(frame: Any, width: int = 100, *, several: bool = False) -> str:
    console = rich.console.Console(file=io.StringIO(), width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(render_runs(frame, width) if several else render_run(frame, width))
    return capture.get()


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    writing = Writing(tmp_path / "a")
    follower = Follower(writing.run, now=writing.clock)
    with Lock.acquire(writing.run.lock) as lock:
        writing.tell(started())
        assert follower.frame()["metrics"] == {}
        assert "it prepares, or is in its first steps" in shown(follower.frame())
        for first in range(1, 41, 10):
            writing.steps(first, [5.0 - first / 10] * 10, memory_bytes=1.2e9)
        writing.tell(EvaluationEnded(40, {"validation/loss": 2.5}, 0.1))
        writing.tell(FindingsChanged(40, (FINDING,)))
        writing.tell(AlertRaised(40, "outlying_step", "step 39: far above"))
        writing.tell(DecisionTaken(40, 40, "save", Save("best")))
        writing.tell(DecisionTaken(40, 40, "plateau", Adjust("flat", "learning_rate", 0.5)))
        writing.run.alerts.write_text(
            json.dumps({"step": 35, "rule": "high", "text": "a, step 35: high: train/loss is 11, > 10"})
            + '\n{"step": 41, "torn'
        )
        frame = follower.frame()
        json.dumps(frame, allow_nan=False)
        assert (frame["status"], frame["step"], frame["total_steps"]) == ("running", 40, 100)
        assert frame["seconds_left"] == pytest.approx(60.0)  # a second each, by the clock
        assert frame["pid"] == lock.holder.pid
        assert frame["best"] == {"metric": "validation/loss", "value": 2.5, "step": 40}
        assert [one["code"] for one in frame["findings"]] == ["overfitting"]
        assert [one["text"] for one in frame["alerts"]] == ["high: train/loss is 11, > 10", "step 39: far above"]
        assert frame["num_alerts"] == 2
        assert [one["text"] for one in frame["decisions"]] == ["plateau: adjust learning_rate (0.5): flat"]
        text = shown(frame)
        assert "step 40/100  40 %  1m 00s left" in text
        assert "memory      1.2 GB" in text
        assert "step 40  warning overfitting: by heart → stop" in text.replace("\n", "")
        assert "\x1b" not in text
        writing.clock.now += 5
        assert follower.frame()["seconds_left"] == pytest.approx(55.0)


def test_a_process_that_gives_no_sign_of_life_is_seen(tmp_path: Path) -> None:
    writing = Writing(tmp_path / "a", clock=Clock())
    with Lock.acquire(writing.run.lock) as lock:
        writing.tell(started())
        follower = Follower(writing.run, now=lambda: lock.holder.heartbeat + 42.0)
        text = shown(follower.frame())
    assert "  a  silent" in text
    assert "silent for 42s" in text


def test_what_a_rollback_took_back_is_gone(tmp_path: Path) -> None:
    writing = Writing(tmp_path / "a")
    follower = Follower(writing.run, now=writing.clock)
    writing.tell(started())
    writing.steps(1, [2.0] * 10)
    writing.steps(11, [9.0] * 10)
    assert follower.frame()["metrics"]["train/loss"]["maximum"] == 9.0
    writing.writer.branch = 1
    writing.tell(RunStarted(10, 1, 1, 10, 100))
    frame = follower.frame()
    assert (frame["step"], frame["branch"]) == (10, 1)
    assert frame["metrics"]["train/loss"]["maximum"] == 2.0
    writing.steps(11, [1.0] * 10)
    frame = follower.frame()
    assert (frame["step"], frame["metrics"]["train/loss"]["minimum"]) == (20, 1.0)


def test_following_and_reading_at_once_come_to_the_same(tmp_path: Path) -> None:
    writing = Writing(tmp_path / "a")
    follower = Follower(writing.run, now=writing.clock)
    writing.tell(started())
    rng = np.random.default_rng(0)
    for first in range(1, 91, 10):
        writing.steps(first, list(rng.normal(3, 1, 10)))
        writing.tell(EvaluationEnded(first + 9, {"validation/loss": float(rng.normal())}, 0.1))
        follower.frame()
    writing.tell(RunEnded(90, "interrupted", "SIGTERM received", None, None, None, 1.0))
    assert follower.frame() == Follower(writing.run, now=writing.clock).frame()
    assert follower.frame()["status"] == "interrupted"


def test_a_torn_tail_is_read_when_it_is_whole_and_damage_is_said(tmp_path: Path) -> None:
    writing = Writing(tmp_path / "a")
    writing.tell(started())
    writing.steps(1, [2.0] * 10)
    whole = writing.run.record.read_bytes()
    writing.steps(11, [1.0] * 10)
    rest = writing.run.record.read_bytes()[len(whole) :]
    writing.writer.close()
    writing.run.record.write_bytes(whole + rest[:30])
    follower = Follower(writing.run, now=writing.clock)
    assert follower.frame()["step"] == 10
    writing.run.record.write_bytes(whole + rest)
    assert follower.frame()["step"] == 20
    writing.run.record.write_bytes(whole.replace(b"train/loss", b"train/lass") + rest)
    frame = Follower(writing.run, now=writing.clock).frame()
    assert frame["damaged_lines"] == 1
    assert "1 damaged lines of the record are left out" in shown(frame)


def test_a_run_that_has_not_begun_and_one_that_is_over(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.yaml").write_text("name: a\n")
    frame = Follower(RunDirectory(tmp_path / "a")).frame()
    assert (frame["status"], frame["step"], frame["total_steps"]) == ("new", 0, None)
    shown(frame)
    writing = Writing(tmp_path / "a")
    writing.tell(started())
    writing.steps(1, [2.0, math.nan, math.inf])
    writing.tell(RunEnded(3, "failed", "numerics \x1b[31m", None, None, None, 3.0))
    (tmp_path / "a" / "diagnosis.json").write_text(json.dumps({"schema": 1, "findings": [FINDING | {"onset_step": 2}]}))
    follower = Follower(writing.run, now=writing.clock)
    frame = follower.frame()
    json.dumps(frame, allow_nan=False)
    assert frame["status"] == "failed"
    assert frame["reason"] == "numerics \x1b[31m"
    assert [one["step"] for one in frame["findings"]] == [2]
    assert frame["metrics"]["train/loss"]["last"] == "inf"
    text = shown(frame)
    assert "\x1b" not in text
    assert "×" in text


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_frames_fit(width: int, tmp_path: Path) -> None:
    writing = Writing(tmp_path / ("a-very-long-name-of-a-run" * 3))
    writing.tell(started())
    for first in range(1, 91, 10):
        writing.steps(
            first, [5.0] * 10, memory_bytes=1e9, mfu=0.4, **{"hardware/NVIDIA H100/utilization_percent": 97.0}
        )
    writing.tell(FindingsChanged(40, (FINDING | {"cause": "long words " * 20},)))
    frame = Follower(writing.run, now=writing.clock).frame()
    lines = shown(frame, width).splitlines()
    assert max(map(len, lines)) <= width
    assert any("train loss" in line and "5.0000" in line for line in lines)
    assert any("utilization percent" in line or "utilization…" in line or "NVIDIA H100" in line for line in lines)
    lines = shown([frame, frame], width, several=True).splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= width
    assert "…" in lines[1].split("  ")[0]  # the name, once
    assert lines[1].count("…") == 1


def test_sparklines() -> None:
    assert sparkline([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([None, 1.0, "nan", 1.0], 4) == " ▁×▁"
    assert sparkline([1.0, 3.0, 5.0, 7.0], 2) == "▂▇"  # means of 2 and 6, between 1 and 7
    assert sparkline([1.0, 10.0, 100.0], 3) == "▁▅█"  # by the logarithm
    assert sparkline([2.0, 4.0], 4) == "▁▁██"
    assert sparkline([], 3) == "   "
    assert sparkline([3.0, 3.0], 2) == "▁▁"
    assert without_unicode("▁█× a → b … ━") == "_#x a -> b ... ="


def test_looking_writes_nothing_and_is_quick(tmp_path: Path) -> None:
    writing = Writing(tmp_path / "a")
    writing.tell(started())
    for first in range(1, 20_001, 20):
        writing.steps(first, [1.0 / first] * 20)
    follower = Follower(writing.run, now=writing.clock)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in tmp_path.rglob("*")}
    follower.frame()
    begun = time.process_time()
    for first in range(20_001, 20_201, 20):
        writing.steps(first, [1.0 / first] * 20)
        shown(follower.frame())
    assert (time.process_time() - begun) / 10 < 0.1
    after = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in tmp_path.rglob("*")}
    assert {path for path in after if after[path] != before.get(path)} == {writing.run.record}
    assert len(follower.frame()["metrics"]["train/loss"]["curve"]) == POINTS
    assert re.search(r"▁+ ", shown(follower.frame()))
