"""What a logger must outlive: a kill, a flood, a disk that hangs, a full one; the training beside it is the same."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from trimtab.integrations.logger import TrainingLogger
from trimtab.runs import RunDirectory, read_record
from trimtab.runs.columns import columns_of_record


def weights(log: Callable[[int, torch.Tensor], object], steps: int = 40) -> list[torch.Tensor]:
    """Of a small network after some steps, of which `log` is told."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Dropout(0.1), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(1, steps + 1):
        inputs = torch.randn(8, 16)
        loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        log(step, loss)
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("calls, names", [(100_000, 20_000), pytest.param(1_000_000, 50_000, marks=pytest.mark.slow)])
def test_a_flood(tmp_path: Path, calls: int, names: int) -> None:
    """Memory is flat, calls are quick, caps hold, what is left out is counted, and the weights are the control's."""
    cap = 2 * 2**20
    process = psutil.Process()
    steps = 40
    control = weights(lambda step, loss: None, steps)
    seconds = np.empty(calls)
    memory: list[int] = []
    theirs = [f"name-{index}" for index in range(names)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        logger = TrainingLogger(tmp_path / "run", report=False, max_names=1000, max_bytes_per_hour=cap)

        def log(step: int, loss: torch.Tensor) -> None:
            per_step = calls // steps
            logger.log_scalar("loss", loss, step)
            for index in range((step - 1) * per_step, step * per_step):
                begun = time.perf_counter()
                logger.log_scalar(theirs[index % names], index, index)
                seconds[index] = time.perf_counter() - begun
            memory.append(process.memory_info().rss)

        flooded = weights(log, steps)
        logger.finish()
    assert same(flooded, control)
    p50, p99 = np.quantile(seconds, (0.5, 0.99))
    print(f"{calls:,} calls: median {p50 * 1e6:.1f} µs, p99 {p99 * 1e6:.1f} µs, worst {seconds.max() * 1e3:.1f} ms")
    assert p99 <= 200e-6
    half = len(memory) // 2
    grown = memory[-1] - memory[half]
    print(f"grown by {grown / 2**20:.1f} MiB in the second half, {(memory[-1] - memory[0]) / 2**20:.1f} in all")
    assert grown < 30 * 2**20
    assert RunDirectory(tmp_path / "run").record.stat().st_size <= cap * 1.05
    found = columns_of_record(logger.run.record)
    assert len(found) <= 1001  # memory_bytes is ours
    told = [line for line in read_record(logger.run.record) if line["event"] == "AlertRaised"]
    assert {line["kind"] for line in told} == {"volume_capped"}
    written = sum(len(values) for name, (_, values) in found.items() if name != "memory_bytes")
    assert written + sum(told[-1]["details"].values()) == calls + steps
    assert len(told) == 1 + len(told[-1]["details"])  # once for each cause, and the sums at the end


@pytest.mark.parametrize(
    "put",
    [
        lambda logger, step: logger.log_text(f"name-{step}", "a", step),
        lambda logger, step: logger.log_text("escapes", "\x01" * 3_000, step),
        lambda logger, step: logger.log_histogram("spread", [0.1, 0.2, 0.7], step),
        lambda logger, step: logger.log_image("picture", np.zeros((2, 2), np.uint8), step),
        lambda logger, step: logger.log({f"{'é' * 100}{step % 40}": 0.1 * step}, step=step),
    ],
    ids=("names", "escapes", "histograms", "pictures", "metrics"),
)
def test_the_caps_hold_for_whatever_is_logged(put: Callable[[TrainingLogger, int], None], tmp_path: Path) -> None:
    cap, calls = 60_000, 700
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        logger = TrainingLogger(tmp_path / "run", report=False, max_names=50, max_bytes_per_hour=cap)
        begun = logger.run.record.stat().st_size
        for step in range(1, calls + 1):
            put(logger, step)
        logger.finish()
    lines = read_record(logger.run.record)
    files = [one.stat().st_size for one in (logger.run.path / "artifacts").rglob("*") if one.is_file()]
    beside = 1_500  # the end, and what was told of the caps
    assert logger.run.record.stat().st_size - begun + sum(files) <= cap + beside
    assert len({line["name"] for line in lines if line["event"] == "ArtifactLogged"}) <= 50
    kept = sum(line["event"] == "ArtifactLogged" for line in lines)
    found = columns_of_record(logger.run.record)
    kept += sum(len(values) for name, (_, values) in found.items() if name != "memory_bytes")
    assert kept >= 3  # of the longest
    assert kept + sum(logger._writer.lost.values()) == calls


def test_a_disk_that_hangs(tmp_path: Path) -> None:
    """A real pipe that nobody reads: writing to it never ends, and training does not hear of it."""
    control = weights(lambda step, loss: None, 200)
    logger = TrainingLogger(tmp_path / "run", report=False)
    file: Any = logger._writer.recording._recorder._record._file
    reading, writing = os.pipe()
    os.dup2(writing, file._descriptor)
    seconds = []

    def log(step: int, loss: torch.Tensor) -> None:
        for index in range(100):
            begun = time.perf_counter()
            logger.log({f"value-{index}-{place}": 0.1 * step for place in range(40)} | {"loss": loss}, step=step)
            seconds.append(time.perf_counter() - begun)
        if step == 20:
            time.sleep(0.7)  # a window is due, and fills the pipe

    hung = weights(log, 200)
    assert same(hung, control)
    assert np.quantile(seconds, 0.99) <= 200e-6
    begun = time.perf_counter()
    with pytest.warns(RuntimeWarning, match="does not take what was logged"):
        logger.finish(timeout_seconds=0.5)
    assert time.perf_counter() - begun < 2
    assert logger._writer.lost["waiting"] > 0
    assert logger._writer._thread.is_alive()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.close(reading)  # lets the thread go
        os.close(writing)
        logger._writer._thread.join(10)


def test_a_full_disk_loses_nothing_once_there_is_room(tmp_path: Path) -> None:
    """The kernel refuses every byte of a file beyond its first 5,000, for a while."""
    logger = TrainingLogger(tmp_path / "run", report=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def log(step: int, loss: torch.Tensor) -> None:
        picture = torch.rand(90, 90)
        logger.log({f"value-{place}": 0.1 * step * place for place in range(100)} | {"loss": loss}, step=step)
        logger.log_image("picture", picture, step=step)
        if step == 120:
            logger.flush()
            assert logger._writer.recording.pending > 0, "the disk is not full"
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
            full = weights(log, 200)
            logger.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert same(full, weights(lambda step, loss: torch.rand(90, 90), 200))
    run = RunDirectory(tmp_path / "run")
    assert run.status() == "finished"
    assert columns_of_record(run.record)["train/loss"][0].tolist() == list(range(1, 201))
    lines = read_record(run.record)
    assert "write_failed" in {line.get("kind") for line in lines}
    left_out = lines[-2]["details"]["disk"]
    pictures = [line["path"] for line in lines if line["event"] == "ArtifactLogged"]
    assert 0 < left_out < 200
    assert len(pictures) + left_out == 200
    assert sorted(run.path / path for path in pictures) == sorted((run.artifacts / "logged").iterdir())


def test_a_kill_loses_at_most_a_second(tmp_path: Path) -> None:
    code = f"""
import time
from trimtab import TrainingLogger
logger = TrainingLogger({str(tmp_path / "run")!r}, report=False)
step = 0
while True:
    step += 1
    logger.log({{"loss": time.time()}}, step=step)
    print(time.time(), flush=True)
    time.sleep(0.01 if step < 200 else 0.5)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    time.sleep(4.0)  # quick steps, then slow ones
    child.send_signal(signal.SIGKILL)
    assert child.stdout is not None
    said = [float(line) for line in child.stdout.read().split()]
    killed = time.time()
    child.wait()
    run = RunDirectory(tmp_path / "run")
    assert run.status() == "killed"
    kept = columns_of_record(run.record)["train/loss"][0].tolist()
    assert kept == list(range(1, len(kept) + 1))
    lost = said[len(kept) :]
    print(f"{len(kept)} of {len(said)} values kept")
    assert all(killed - when < 1.0 for when in lost)
    with TrainingLogger(tmp_path / "run", resume=True, report=False) as logger:
        logger.log({"loss": 1.0})
    assert RunDirectory(tmp_path / "run").status() == "finished"


def test_what_fails_inside_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = TrainingLogger(tmp_path / "run", report=False)

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("in the writer")

    monkeypatch.setattr(logger._writer.recording, "record", broken, raising=False)
    logger.log({"loss": 1.0}, step=1)
    with pytest.warns(RuntimeWarning, match="no longer observes this run: ZeroDivisionError"):
        logger.flush()
    for step in range(2, 50):
        logger.log({"loss": 1.0}, step=step)
    assert logger.flush()
    assert not logger._writer._queue
    monkeypatch.undo()
    logger.finish()
    end = read_record(logger.run.record)[-1]
    assert (end["status"], end["reason"]) == (
        "interrupted",
        "the logger fell silent: ZeroDivisionError: in the writer",
    )


def test_a_value_that_raises_costs_no_other(tmp_path: Path) -> None:
    class Raises:
        def __float__(self) -> float:
            raise RuntimeError("no number today")

    logger = TrainingLogger(tmp_path / "run", report=False)
    logger.log({"bad": Raises(), "loss": 1.0}, step=1)
    logger.log_scalar(3, 0.5, step=2)  # type: ignore[arg-type]
    logger.log_text(4, "a note", step=2)  # type: ignore[arg-type]
    with pytest.warns(RuntimeWarning, match="no single number"):
        assert logger.flush()
    logger.log({"loss": 3.0}, step=3)
    logger.finish()
    found = {name: values.tolist() for name, (_, values) in columns_of_record(logger.run.record).items()}
    assert found["train/loss"] == [1.0, 3.0]
    assert found["user/3"] == [0.5]
    assert "user/bad" not in found
    assert logger.run.status() == "finished"
    assert logger._writer.lost["no_number"] == 1
