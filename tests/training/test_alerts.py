"""What goes wrong on the way is in the record within a step: a disk that refuses, a clock that jumps, memory."""

from __future__ import annotations

import errno
import itertools
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rig import Rig
from test_saves import slow_writes

from trimtab.data import DataPlan, Loader, Order
from trimtab.errors import ResourceError, StorageError
from trimtab.events import AlertRaised, StepsEnded
from trimtab.runs import files
from trimtab.runs.record import read_record
from trimtab.runs.summary import render, summarize
from trimtab.training.alerts import MOST_A_WINDOW, StepAlerts


def alerts(rig: Rig) -> list[dict[str, Any]]:
    return [line for line in read_record(rig.run.record) if line["event"] == "AlertRaised"]


@pytest.mark.filterwarnings("ignore:the checkpoint could not be written")
def test_a_background_write_that_fails_once_is_an_alert_within_a_step_and_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_writes(monkeypatch, failures=1)
    rig = Rig(tmp_path / "run", steps=12, save_every=6)
    assert rig.go().status == "finished"
    (alert,) = alerts(rig)
    assert alert["kind"] == "write_failed"
    assert alert["text"].endswith("No space left on device; it is tried again")
    assert 6 <= alert["step"] <= 12
    assert [event.step for event in rig.watch.of(AlertRaised)] == [alert["step"]], "monitors hear of it, too"
    assert sorted(path.name for path in rig.run.checkpoints.iterdir()) == ["step-00000006", "step-00000012"]


@pytest.mark.filterwarnings("ignore:the checkpoint could not be written")
def test_the_alert_does_not_wait_for_the_write_to_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_writes(monkeypatch, failures=1)
    from trimtab.training.checkpoint import keeper

    monkeypatch.setattr(keeper, "RETRY_SECONDS", 0.5)
    rig = Rig(tmp_path / "run", steps=160, log_every=40, evaluate_every=160, save_every=40)
    loop = rig.build()
    step = loop._train_step
    monkeypatch.setattr(loop, "_train_step", lambda: (step(), time.sleep(0.01))[0])
    rig.build = lambda: loop  # type: ignore[method-assign]
    rig.go()
    (alert,) = alerts(rig)
    assert 40 <= alert["step"] < 80, "while the writer still waits to try again"


@pytest.mark.filterwarnings("ignore:the checkpoint could not be written")
def test_a_save_that_is_given_up_is_an_alert_and_one_that_ends_the_run_is_told_before_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_writes(monkeypatch, failures=3)
    rig = Rig(tmp_path / "on", steps=12, save_every=6, failure_stops=False)
    rig.go()
    assert [line["text"].rpartition("; ")[2] for line in alerts(rig)] == [
        "it is tried again",
        "it is tried again",
        "the run goes on without it",
    ]
    slow_writes(monkeypatch, failures=30)
    stops = Rig(tmp_path / "stops", steps=12, save_every=6)
    loop = stops.build()
    with pytest.raises(StorageError):
        loop.run(_started(stops, loop))
    loop.settle()
    stops.loader.close()
    stops.recorder.close()
    assert len(alerts(stops)) == 2


def _started(rig: Rig, loop: Any) -> Any:
    from trimtab.events import RunStarted

    return RunStarted(loop.progress.step, loop.progress.attempt, loop.progress.branch, rig.resumed_from, rig.steps)


@pytest.mark.filterwarnings("ignore:the record could not be written")
def test_one_input_output_error_in_the_record_is_told_and_costs_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Rig(tmp_path / "plain", steps=12, in_background=False)
    plain.go()
    write, calls = os.write, itertools.count(1)

    def refuses(descriptor: int, data: bytes) -> int:
        if b'"event":"StepsEnded"' in bytes(data) and next(calls) == 3:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return write(descriptor, data)

    monkeypatch.setattr(files.os, "write", refuses)
    rig = Rig(tmp_path / "run", steps=12, in_background=False)
    rig.go()
    (alert,) = alerts(rig)
    assert "Input/output error" in alert["text"]
    told = [line["event"] for line in read_record(rig.run.record) if line["event"] != "AlertRaised"]
    assert told == [line["event"] for line in read_record(plain.run.record)]
    window = read_record(rig.run.record)[alert["sequence"] - 2]
    assert (window["event"], window["last_step"]) == ("StepsEnded", alert["step"]), "right behind what was refused"


def test_a_clock_that_jumps_changes_no_order_no_rate_and_no_duration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wall clock is set back by an hour at every look at it; files are ordered by sequence."""
    looks, true = itertools.count(), time.time
    monkeypatch.setattr(time, "time", lambda: true() - 3600.0 * next(looks))
    rig = Rig(tmp_path / "rig", steps=12, save_every=3)
    loop = rig.build()
    rig.recorder._record._now = time.time
    loop.run(_started(rig, loop))
    loop.close()
    rig.recorder.close()
    lines = read_record(rig.run.record)
    times = [line["time"] for line in lines]
    assert min(b - a for a, b in itertools.pairwise(times)) < -3000, "the clock did jump"
    assert [line["sequence"] for line in lines] == list(range(1, len(lines) + 1))
    for window in rig.watch.of(StepsEnded):
        assert (window.per_step["step_seconds"] >= 0).all()
        assert window.values["tokens_per_second"] > 0
    monkeypatch.undo()
    summary = summarize(rig.run)
    assert summary["seconds"] > 0
    assert summary["step"] == 12
    assert [one["step"] for one in summary["checkpoints"]] == [3, 6, 9, 12]
    assert "-" not in render(summary).partition("time")[2].splitlines()[0]
    rig.keeper.close()


def test_steps_beyond_twenty_in_a_window_are_counted_and_an_overflow_of_fp16_is_nothing_to_tell() -> None:
    steps = 60
    loss, norm = np.full(steps, 2.0), np.full(steps, np.inf)
    skipped, scale = np.ones(steps), np.full(steps, 1024.0)
    columns = {"train/loss": loss, "grad_norm": norm, "skipped": skipped}

    def told(**more: Any) -> list[AlertRaised]:
        window = StepsEnded(101, 100 + steps, {**columns, **more}, {})
        spans = StepAlerts(lambda spans: {"positions": [[8 * first - 8, 8 * last] for first, last in spans]})
        return list(spans.of(window, 170))

    found = told()
    assert len(found) == MOST_A_WINDOW + 1
    assert found[0].details["step"] == 101
    assert found[0].details["positions"] == [[800, 808]]
    assert found[-1].text == "40 more such steps, up to step 160"
    assert told(loss_scale=scale) == []
    assert len(told(loss_scale=np.ones(steps))) == MOST_A_WINDOW + 1, "at the floor it is no matter of the scale"
    bad = loss.copy()
    bad[7] = np.nan
    assert [one.details["step"] for one in told(loss_scale=scale, **{"train/loss": bad})] == [108]
    (outlier,) = told(grad_norm=np.full(steps, 3.0), skipped=np.where(np.arange(steps) == 4, 1.0, 0.0))
    assert (outlier.kind, outlier.details["step"]) == ("outlying_step", 105)


def test_of_too_many_steps_those_with_a_high_loss_or_a_jump_are_told() -> None:
    loss = np.linspace(2.0, 1.0, 60)
    loss[50], loss[40:42] = 9.0, np.nan
    columns = {"train/loss": loss, "grad_norm": np.full(60, np.inf), "skipped": np.ones(60)}
    spans = StepAlerts(lambda spans: {"positions": [[first, last + 1] for first, last in spans]})
    *told, rest = spans.of(StepsEnded(1, 60, columns, {}), 70)
    steps = [one.details["step"] for one in told]
    assert steps == sorted(steps)
    assert len(steps) == MOST_A_WINDOW
    assert {41, 42, 51, 52} <= set(steps), "not finite; the highest; the jump back"
    assert {1, 2, 3} <= set(steps)
    assert rest.details["steps"] == 40


def test_memory_that_runs_out_while_data_is_prepared_says_where_and_what_to_lower() -> None:
    class Large:
        sequence_length, num_tokens, mean_length = 8, 800, 8.0

        def __len__(self) -> int:
            return 100

        def batch(self, indices: Any, batch_size: Any = None, occurrences: Any = None) -> Any:
            raise MemoryError

    loader = Loader(Large(), Order(100, seed=0), 4, prefetch=3)
    loader.start(16, DataPlan())
    try:
        with pytest.raises(ResourceError, match="micro-batch of 4 sequences was prepared, up to position 20") as caught:
            loader.take(1)
    finally:
        loader.close()
    assert "data.prefetch (up to 3 micro-batches" in str(caught.value)
