"""The record: what is written is read back, whatever happens to the writer."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.errors import StorageError, UsageError
from trimtab.events import (
    Adjust,
    Advise,
    ArtifactLogged,
    CheckpointSaved,
    DecisionTaken,
    Evaluate,
    EvaluationEnded,
    Event,
    FindingsChanged,
    Rollback,
    RunEnded,
    RunStarted,
    Save,
    StepsEnded,
    Stop,
)
from trimtab.runs import (
    History,
    Recorder,
    RecordReader,
    RecordWriter,
    RunDirectory,
    StatisticsWriter,
    event_from_json,
    event_to_json,
    read_record,
    read_statistics,
)
from trimtab.runs.metric_table import rows_of
from trimtab.runs.record import lines_of

steps = st.integers(0, 10**7)
names = st.text(min_size=1, max_size=12)
numbers = st.floats(width=64)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
metrics = st.dictionaries(names, numbers, max_size=4)
decisions = st.one_of(
    st.builds(Stop, st.text(), st.booleans(), st.integers(0, 255)),
    st.builds(Save, st.text()),
    st.builds(Rollback, st.text(), steps, st.lists(st.tuples(steps, steps), max_size=3).map(tuple)),
    st.builds(Adjust, st.text(), st.text(), st.floats(allow_nan=False, allow_infinity=False)),
    st.builds(Evaluate, st.text()),
    st.builds(Advise, st.text(), st.dictionaries(st.text(), json_values, max_size=3)),
)


@st.composite
def windows(draw: st.DrawFn) -> StepsEnded:
    first = draw(steps)
    length = draw(st.integers(1, 40))
    series = st.lists(st.floats(width=32), min_size=length, max_size=length) | numbers.map(lambda x: [x] * length)
    per_step = draw(st.dictionaries(names, series, max_size=5))
    arrays = {name: np.array(values, dtype=np.float64) for name, values in per_step.items()}
    return StepsEnded(first, first + length - 1, arrays, draw(metrics), draw(metrics))


events = st.one_of(
    st.builds(
        RunStarted, steps, steps, steps, st.none() | steps, steps, st.dictionaries(st.text(), json_values, max_size=4)
    ),
    windows(),
    st.builds(EvaluationEnded, steps, metrics, numbers),
    st.builds(CheckpointSaved, steps, st.text(), steps, numbers, st.text()),
    st.builds(
        FindingsChanged, steps, st.lists(st.dictionaries(st.text(), json_values, max_size=3), max_size=3).map(tuple)
    ),
    st.builds(DecisionTaken, steps, steps, st.text(), decisions, st.sampled_from(["taken", "overruled"]), st.text()),
    st.builds(
        ArtifactLogged,
        steps,
        st.sampled_from(["sample", "picture", "histogram", "text"]),
        st.text(),
        st.text(),
        st.none() | st.text(),
    ),
    st.builds(
        RunEnded,
        steps,
        st.sampled_from(["finished", "stopped", "interrupted", "failed"]),
        st.text(),
        st.none() | steps,
        st.none() | numbers,
        st.none() | steps,
        numbers,
        metrics,
    ),
)


def same(first: Any, second: Any, tolerance: float = 0.0) -> bool:
    """Equality in which NaN equals NaN, through all of an event."""
    if isinstance(first, np.ndarray):
        return bool(np.allclose(first, second, rtol=tolerance, atol=0.0, equal_nan=True))
    if isinstance(first, float):
        return first == second or (math.isnan(first) and math.isnan(second))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key], tolerance) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(same(a, b, tolerance) for a, b in zip(first, second, strict=True))
    if hasattr(type(first), "__dataclass_fields__"):
        return type(first) is type(second) and all(
            same(getattr(first, name), getattr(second, name), tolerance) for name in type(first).__dataclass_fields__
        )
    return bool(first == second)


def window(first: int, last: int, **more: float) -> StepsEnded:
    """A window with one varying and one constant metric."""
    loss = np.array([5.0 / step for step in range(first, last + 1)])
    return StepsEnded(first, last, {"train/loss": loss, "tokens": np.full(last - first + 1, 64.0)}, more)


@given(events)
@settings(max_examples=300, deadline=None)
def test_events_survive_the_way_through_json(event: Event) -> None:
    text = json.dumps(event_to_json(event), allow_nan=False)
    again = event_from_json(json.loads(text))
    assert same(event, again, tolerance=1e-6)
    # What was rounded once is not rounded again.
    assert json.dumps(event_to_json(again), allow_nan=False) == text


@given(event=events)
@settings(max_examples=60, deadline=None)
def test_events_survive_the_way_through_the_record(event: Event, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("run")
    recorder = Recorder(RecordWriter(folder / "record.jsonl"))
    recorder.record(event)
    recorder.close()
    lines = read_record(folder / "record.jsonl")
    read = [event_from_json(line) for line in lines]
    assert [line["sequence"] for line in lines] == list(range(1, len(lines) + 1))
    if not isinstance(event, StepsEnded):
        assert same([event], read)
        return
    # A large window comes back in parts, which together are the window.
    parts = [part for part in read if isinstance(part, StepsEnded)]
    assert (parts[0].first_step, parts[-1].last_step) == (event.first_step, event.last_step)
    for name, values in event.per_step.items():
        joined = np.concatenate([part.per_step[name] for part in parts if part.per_step])
        assert same(values, joined, tolerance=1e-6)
    assert same(dict(event.values), {name: value for part in parts for name, value in part.values.items()})


def test_a_stranger_can_check_and_read_the_record(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    recorder = Recorder(RecordWriter(path))
    recorder.record(RunStarted(0, 1, 0, None, 20, {"name": "Grüße \u202e\x1b[31m", "loss": math.inf}))
    recorder.record(window(1, 10, memory_bytes=1e9, odd=math.nan))
    recorder.record(EvaluationEnded(10, {"validation/loss": -math.inf}, 0.5))
    recorder.close()
    raw = path.read_bytes()
    assert raw.isascii()
    assert all(byte >= 32 or byte == 10 for byte in raw)
    for line in raw.splitlines():
        body, _, checksum = line.rpartition(b',"crc32":')
        assert zlib.crc32(body + b"}") == int(checksum[:-1])
        content = json.loads(line)
        assert content["schema"] == 1
        del content["crc32"]
        assert zlib.crc32(json.dumps(content, separators=(",", ":")).encode()) == int(checksum[:-1])
    started, steps_ended, evaluated = (json.loads(line) for line in raw.splitlines())
    assert started["facts"]["loss"] == "inf"
    assert steps_ended["per_step"]["tokens"] == 64
    assert len(steps_ended["per_step"]["train/loss"]) == 10
    assert steps_ended["values"]["odd"] == "nan"
    assert evaluated["metrics"]["validation/loss"] == "-inf"


def test_what_is_not_finite_is_read_back_as_floats(tmp_path: Path) -> None:
    recorder = Recorder(RecordWriter(tmp_path / "record.jsonl"))
    recorder.record(StepsEnded(1, 2, {"train/loss": np.array([1.0, math.nan])}, {"memory_bytes": math.inf}))
    recorder.record(EvaluationEnded(2, {"validation/loss": -math.inf}, 0.5))
    recorder.close()
    steps_ended, evaluated = read_record(tmp_path / "record.jsonl")
    assert math.isnan(steps_ended["per_step"]["train/loss"][1])
    assert steps_ended["values"] == {"memory_bytes": math.inf}
    assert evaluated["metrics"] == {"validation/loss": -math.inf}


def test_no_line_holds_many_more_than_fifty_values(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    recorder = Recorder(RecordWriter(tmp_path / "record.jsonl"))
    per_step = {f"metric/{index}": generator.standard_normal(1000) for index in range(7)}
    recorder.record(StepsEnded(1, 1000, per_step, {f"user/{index}": float(index) for index in range(120)}))
    recorder.close()
    lines = read_record(tmp_path / "record.jsonl")
    for line in lines:
        assert sum(np.size(series) for series in line["per_step"].values()) + len(line["values"]) <= 60
    joined = np.concatenate([event_from_json(line).per_step.get("metric/3", []) for line in lines])  # type: ignore[union-attr]
    assert np.allclose(joined, per_step["metric/3"], rtol=1e-6)


def test_every_cut_of_the_tail_leaves_all_complete_events(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    writer = RecordWriter(path)
    for index in range(8):
        writer.append(event_to_json(window(10 * index + 1, 10 * index + 10)))
    writer.close()
    whole = path.read_bytes()
    ends = [index for index, byte in enumerate(whole) if byte == 10]
    for cut in range(len(whole) - 400, len(whole)):
        path.write_bytes(whole[:cut])
        complete = sum(end <= cut for end in ends)
        assert [line["sequence"] for line in read_record(path)] == list(range(1, complete + 1))
        writer = RecordWriter(path, branch=1)
        writer.append(event_to_json(EvaluationEnded(80, {"validation/loss": 1.0}, 0.1)))
        writer.close()
        reader = RecordReader(path)
        assert [line["sequence"] for line in reader.read()] == list(range(1, complete + 2))
        assert reader.damaged == 0
        assert path.read_bytes().startswith(whole[: ends[complete - 1]])


@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=200, deadline=None)
def test_a_flipped_bit_costs_the_lines_it_touches_and_no_more(
    position: float, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("run") / "record.jsonl"
    writer = RecordWriter(path)
    for index in range(5):
        writer.append(event_to_json(window(10 * index + 1, 10 * index + 10)))
    writer.close()
    whole = read_record(path)
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] ^= 1 << bit
    path.write_bytes(data)
    reader = RecordReader(path)
    read = reader.read()
    assert all(line in whole for line in read)
    assert len(read) >= 3
    # The line end between two lines can be flipped: they are then one damaged line.
    assert len(read) + reader.damaged >= 4


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    reader = RecordReader(path)
    assert reader.read() == []
    writer = RecordWriter(path)
    writer.append(event_to_json(window(1, 10)))
    assert [line["sequence"] for line in reader.read()] == [1]
    assert reader.read() == []
    whole = path.read_bytes()
    with open(path, "ab") as file:
        file.write(whole[:50])
    assert reader.read() == []
    writer.close()
    writer = RecordWriter(path)
    writer.append(event_to_json(window(11, 20)), event_to_json(window(21, 30)))
    writer.close()
    assert [line["sequence"] for line in reader.read()] == [2, 3]
    assert reader.damaged == 0


def test_a_record_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    body = b'{"schema":2,"sequence":1}'
    content = body[:-1] + b',"crc32":%d}\n' % zlib.crc32(body)
    path.write_bytes(content)
    for use in (RecordWriter, read_record):
        with pytest.raises(UsageError, match=r"schema 1\. Received: 2"):
            use(path)
    assert path.read_bytes() == content


def test_a_resumed_run_has_every_step_once(tmp_path: Path) -> None:
    """Killed at 45, resumed from 30 with the window 21-30 still undelivered in the checkpoint."""
    recorder = Recorder(RecordWriter(tmp_path / "record.jsonl"))
    recorder.record(RunStarted(0, 1, 0, None, 60))
    for first in (1, 11, 21, 31):
        recorder.record(window(first, first + 9))
    recorder.record(EvaluationEnded(30, {"validation/loss": 1.0}, 0.1))
    recorder.record(EvaluationEnded(40, {"validation/loss": 0.5}, 0.1))
    recorder.record(RunStarted(30, 2, 1, 30, 60))
    for first in (21, 31, 41, 51):
        recorder.record(window(first, first + 9))
    recorder.record(EvaluationEnded(60, {"validation/loss": 0.7}, 0.1))
    recorder.close()
    lines = read_record(tmp_path / "record.jsonl")
    covered = [
        step
        for line in lines
        if line["event"] == "StepsEnded"
        for step in range(line["first_step"], line["last_step"] + 1)
    ]
    assert covered == list(range(1, 61))
    assert [line["step"] for line in lines if line["event"] == "EvaluationEnded"] == [30, 60]
    assert [line["branch"] for line in lines if line["event"] == "RunStarted"] == [0, 1]
    assert len(read_record(tmp_path / "record.jsonl", all_branches=True)) == 13


def test_a_rollback_takes_back_two_branches_at_once(tmp_path: Path) -> None:
    recorder = Recorder(RecordWriter(tmp_path / "record.jsonl"))
    recorder.record(RunStarted(0, 1, 0, None, 60))
    recorder.record(window(1, 10))
    recorder.record(window(11, 20))
    recorder.record(RunStarted(20, 2, 1, 20, 60))
    recorder.record(window(21, 30))
    recorder.record(DecisionTaken(30, 30, "spike", Rollback("a spike", 15)))
    recorder.record(RunStarted(10, 2, 2, 10, 60))
    recorder.record(window(11, 20))
    recorder.close()
    lines = read_record(tmp_path / "record.jsonl")
    assert [(line["event"], line["branch"], line["step"]) for line in lines] == [
        ("RunStarted", 0, 0),
        ("StepsEnded", 0, 10),
        ("RunStarted", 2, 10),
        ("StepsEnded", 2, 20),
    ]


def test_layers_go_to_the_statistics(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "layers")
    recorder = Recorder.open(run)
    recorder.record(StepsEnded(1, 10, {}, {}, {"layer/a/grad_norm": 1.5, "layer/b/grad_norm": 2.5}))
    recorder.close()
    (line,) = read_record(run.record)
    assert "layers" not in line
    found, columns, values = read_statistics(run.statistics)
    assert (found.tolist(), columns) == ([10], ("layer/a/grad_norm", "layer/b/grad_norm"))
    assert values.tolist() == [[1.5, 2.5]]


_ENDLESS = """
    import sys, time
    from pathlib import Path
    from trimtab.runs import RecordWriter
    writer = RecordWriter(Path(sys.argv[1]))
    step = 0
    while True:
        step += 1
        metrics = {"validation/loss": 1 / step}
        writer.append({"event": "EvaluationEnded", "step": step, "metrics": metrics, "seconds": 0.0})
        print(step, flush=True)
"""


def test_nothing_that_was_written_is_lost_by_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    told = 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(_ENDLESS), str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        told += 1 + len(process.stdout.read().split())
        process.wait()
        process.stdout.close()
    reader = RecordReader(path)
    lines = reader.read()
    assert reader.damaged == 0
    assert [line["sequence"] for line in lines] == list(range(1, len(lines) + 1))
    # A kill may come between the write and the print.
    assert told <= len(lines) <= told + 3


_FULL_DISK = """
    import resource, sys
    from pathlib import Path
    from trimtab.errors import StorageError
    from trimtab.runs import RecordWriter, read_record

    path = Path(sys.argv[1])
    event = {"event": "ArtifactLogged", "step": 1, "kind": "text", "name": "x", "text": "y" * 100, "path": None}
    writer = RecordWriter(path, retries=2, retry_seconds=0.01)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    for _ in range(20):
        writer.append(event)
    assert path.stat().st_size == 1000, path.stat().st_size
    assert writer.pending > 3000, writer.pending
    assert len(read_record(path)) == path.read_bytes().count(b"\\n") > 2
    try:
        writer.sync()
    except StorageError as error:
        assert error.exit_code == 5 and str(path) in str(error), error
    else:
        raise SystemExit("sync must raise")
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    writer.append(event)
    assert writer.pending == 0
    writer.close()
    assert [line["sequence"] for line in read_record(path)] == list(range(1, 22))
"""


def test_a_full_disk_is_waited_for_and_then_an_error(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_FULL_DISK), str(tmp_path / "record.jsonl")],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


def test_threads_take_turns_in_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the watchdog's and the loop's on a slow disk; while it writes, nothing may be appended to what it writes."""
    write = os.write

    def slow(descriptor: int, data: bytearray) -> int:
        with memoryview(data):
            time.sleep(0.01)
            return write(descriptor, data)

    monkeypatch.setattr("trimtab.runs.files.os.write", slow)
    writer = RecordWriter(tmp_path / "record.jsonl")
    failed: list[BaseException] = []

    def write_windows(first: int) -> None:
        try:
            for number in range(10):
                writer.append(event_to_json(window(first + 10 * number, first + 10 * number + 9)))
                if number % 3 == 0:
                    writer.sync()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write_windows, args=(first,)) for first in (1, 1001, 2001)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert failed == []
    reader = RecordReader(tmp_path / "record.jsonl")
    assert [line["sequence"] for line in reader.read()] == list(range(1, 31))
    assert reader.damaged == 0


def test_closing_with_a_full_disk_raises_and_closes(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path / "record.jsonl", retries=1, retry_seconds=0.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        writer.append(event_to_json(window(1, 10)))
        with pytest.raises(StorageError, match="could not be written in 2 attempts"):
            writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    writer.close()


def test_a_record_that_cannot_be_opened_names_its_path(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"missing/record\.jsonl"):
        RecordWriter(tmp_path / "missing" / "record.jsonl")


def test_writing_a_window_takes_far_less_than_a_step(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    recorder = Recorder(RecordWriter(tmp_path / "record.jsonl"), StatisticsWriter(tmp_path / "statistics"))
    varying = ("train/loss", "train/accuracy", "grad_norm", "learning_rate", "step_seconds", "data_seconds")
    per_step = {name: generator.random(10) for name in varying} | {"tokens": np.full(10, 4096.0)}
    layers = {f"layer/{index}/grad_norm": float(index) for index in range(100)}
    times = []
    for index in range(200):
        event = StepsEnded(10 * index + 1, 10 * index + 10, per_step, {"tokens_per_second": 1.0}, layers)
        begun = time.perf_counter()
        recorder.record(event)
        times.append(time.perf_counter() - begun)
    recorder.close()
    # About 0.25 ms a window of ten steps on an idle core; the bound leaves room for a busy machine.
    assert sorted(times)[100] < 2e-3
    assert os.path.getsize(tmp_path / "record.jsonl") < 200 * 2500


def test_halves_of_surrogate_pairs_and_huge_numbers_come_back(tmp_path: Path) -> None:
    told = RunStarted(0, 1, 0, None, 10, {"run": "runs/caf\udce9", "seed": 2**63 - 1})
    writer = RecordWriter(tmp_path / "record.jsonl")
    writer.append(*lines_of(told))
    writer.close()
    reader = RecordReader(tmp_path / "record.jsonl")
    assert event_from_json(reader.read()[0]) == told
    assert reader.damaged == 0


def test_speeds_of_older_records_are_of_tokens_that_were_read(tmp_path: Path) -> None:
    per_step = {"tokens": 8.0, "tokens_read": 46.0, "step_seconds": 0.5}
    old = {"tokens_per_second": 16.0, "tokens_read_per_second": 92.0, "memory_bytes": 1.0}
    run = RunDirectory.create(tmp_path, "older")
    recorder = Recorder.open(run)
    recorder.record(StepsEnded(1, 1, {name: np.array([value]) for name, value in per_step.items()}, old))
    recorder.close()
    (line,) = read_record(run.record)
    event = event_from_json(line)
    assert isinstance(event, StepsEnded)
    assert event.values == {"tokens_per_second": 92.0, "memory_bytes": 1.0}
    assert line["values"] == old, "what stands in the file is left"
    history = History.read(run.record)
    series = history.get("tokens_per_second")
    assert series is not None
    assert series.mean.tolist() == [92.0]
    assert not history.has("tokens_read_per_second")
    told = {row.metric: row.value for row in rows_of(run)}
    assert told["tokens_per_second"] == 92.0
