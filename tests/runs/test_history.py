"""A history has the same buckets however its samples came, and follows a run as it would be read afterwards."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.events import EvaluationEnded, RunEnded, RunStarted, StepsEnded
from trimtab.runs.history import MAX_BUCKETS, RAW_SAMPLES, History, Layers, Series
from trimtab.runs.record import RecordWriter, lines_of


def series_of(values: np.ndarray, cuts: list[int], capacity: int) -> Series:
    series = Series(capacity)
    steps = np.arange(1, len(values) + 1)
    bounds = [0, *sorted(cut % (len(values) + 1) for cut in cuts), len(values)]
    for begin, end in itertools.pairwise(bounds):
        series.append(steps[begin:end], values[begin:end])
        assert series.num_samples == end  # also as somebody reads them in between
    return series


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(math.nan), st.just(math.inf)), min_size=1, max_size=300),
    cuts=st.lists(st.integers(0, 300), max_size=20),
    capacity=st.sampled_from([2, 4, 16]),
)
def test_buckets_depend_on_the_samples_alone(values: list[float], cuts: list[int], capacity: int) -> None:
    array = np.array(values)
    whole, parts = series_of(array, [], capacity), series_of(array, cuts, capacity)
    for one, other in zip(whole.columns, parts.columns, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(whole) <= capacity + 1
    assert whole.num_samples == len(values)
    assert whole.num_bad == int((~np.isfinite(array)).sum())
    finite = array[np.isfinite(array)]
    if len(finite):
        assert np.nanmin(whole.minimum) == finite.min()
        assert np.nanmax(whole.maximum) == finite.max()
    np.testing.assert_array_equal(whole.raw()[1], array)


def test_a_long_series_stays_small_and_keeps_mean_extremes_and_places() -> None:
    values = np.sin(np.arange(100_000) / 7.0)
    values[77_776] = 50.0
    series = series_of(values, [], MAX_BUCKETS)
    assert series.width == 32
    assert len(series) <= MAX_BUCKETS
    at = int(np.argmax(series.maximum))
    assert series.first_steps[at] <= 77_777 <= series.steps[at]
    np.testing.assert_allclose(series.mean[0], values[:32].mean(), rtol=1e-12)
    assert len(series.raw()[0]) == RAW_SAMPLES
    assert series.raw()[0][-1] == 100_000


def events() -> list:
    generator = np.random.default_rng(3)
    told: list = [RunStarted(0, 1, 0, None, 60)]
    for first in range(1, 61, 10):
        loss = 3.0 / np.arange(first, first + 10) + generator.normal(size=10) * 0.1
        if first == 21:
            loss[4] = math.nan
        rates = np.full(10, 1e-3)
        told.append(
            StepsEnded(first, first + 9, {"train/loss": loss, "learning_rate": rates}, {"memory_bytes": 1e6 / 3})
        )
        told.append(EvaluationEnded(first + 9, {"validation/loss": 3.0 / first}, 0.5))
    told.append(RunEnded(60, "finished", "all 60 steps done", 60, 0.05, None, 1.0))
    return told


def test_following_a_run_gives_what_reading_its_record_gives(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path / "record.jsonl")
    followed = History()
    for event in events():
        writer.append(*lines_of(event))
        followed.observe(event)
    writer.close()
    read = History.read(tmp_path / "record.jsonl")
    assert set(read.series) == set(followed.series)
    for name in read.series:
        for one, other in zip(read.series[name].columns, followed.series[name].columns, strict=True):
            np.testing.assert_array_equal(one, other)
    assert read.last_step == followed.last_step == 60
    assert read.series["train/loss"].first_bad_step == 25
    assert read.ended == followed.ended
    assert read.total_steps == 60


def test_lines_that_were_asked_before_are_written_as_they_are(tmp_path: Path) -> None:
    writer, followed = RecordWriter(tmp_path / "record.jsonl"), History()
    bad = StepsEnded(1, 2, {"train/loss": np.array([np.nan, 1 / 3])}, {"memory_bytes": math.inf}, {"layer/a/x": 0.1})
    followed.observe(bad)
    assert followed.series["train/loss"].num_bad == 1
    writer.append(*lines_of(replace(bad, layers={})))  # the same values: its lines are kept
    writer.append(*lines_of(replace(bad, first_step=3, last_step=4)))  # other steps: they are not
    writer.close()
    lines = [json.loads(line) for line in (tmp_path / "record.jsonl").read_text().splitlines()]
    assert [(line["first_step"], line["per_step"]["train/loss"]) for line in lines] == [
        (1, ["nan", 0.3333333]),
        (3, ["nan", 0.3333333]),
    ]
    assert lines[0]["values"] == {"memory_bytes": "inf"}


def test_only_the_branch_that_survived_is_read(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path / "record.jsonl", branch=0)
    for event in events():
        writer.append(*lines_of(event))
    writer.branch = 1
    writer.append(*lines_of(RunStarted(20, 2, 1, 20, 60)))
    writer.append(*lines_of(StepsEnded(21, 30, {"train/loss": np.full(10, 7.0)}, {})))
    writer.close()
    read = History.read(tmp_path / "record.jsonl")
    assert read.last_step == 30
    assert read.series["train/loss"].num_bad == 0
    np.testing.assert_array_equal(read.series["train/loss"].mean[20:], np.full(10, 7.0))
    assert read.ended is None
    assert History.read(tmp_path / "record.jsonl", all_branches=True).series["train/loss"].num_samples == 70


def test_layers_are_told_apart_by_metric_and_thinned() -> None:
    layers = Layers()
    for window in range(3000):
        values = np.array([float(window), 1.0])
        layers.append(10 * window, ("layer/a/grad_norm", "layer/a/weight_norm"), values)
    assert layers.has("grad_norm")
    assert not layers.has("activation_rms")
    steps, names, values_WL = layers.values("grad_norm")
    assert names == ("a",)
    assert len(steps) <= 1024
    np.testing.assert_array_equal(values_WL[:, 0] * 10, steps)
    assert steps[-1] == 29_990
    layers.append(30_000, ("layer/a/grad_norm",), np.array([7.0]))  # what was asked before is not what it holds now
    steps, _, values_WL = layers.values("grad_norm")
    assert (steps[-1], values_WL[-1, 0]) == (30_000, 7.0)


NUMBERS = st.floats(-9.0, 9.0) | st.integers(-9, 9) | st.just(math.nan) | st.none()


@st.composite
def step_lines(draw: st.DrawFn) -> list[dict[str, Any]]:
    """StepsEnded lines as a record's reader gives them, and some that no writer of ours makes."""
    lines, step = [], 0
    for _ in range(draw(st.integers(0, 8))):
        num = draw(st.integers(0, 4))
        parts = NUMBERS | st.lists(NUMBERS, min_size=num, max_size=num) | st.lists(NUMBERS, max_size=5)
        per_step = draw(st.dictionaries(st.sampled_from("ab"), parts, max_size=2))
        values = draw(st.dictionaries(st.just("v"), NUMBERS, max_size=1))
        window = {"first_step": step + 1, "last_step": step + num, "per_step": per_step, "values": values}
        lines.append({"event": "StepsEnded", "step": step + num, **window})
        step += num
    return lines


@settings(max_examples=200, deadline=None)
@given(step_lines())
def test_columns_of_many_lines_hold_what_each_line_says(lines: list[dict[str, Any]]) -> None:
    expected: dict[str, list[tuple[int, float]]] = {"a": [], "b": [], "v": []}
    for line in lines:
        steps = range(line["first_step"], line["last_step"] + 1)
        for name, part in line["per_step"].items():
            values = part if isinstance(part, list) else [part] * len(steps)
            if len(values) == len(steps):
                expected[name] += zip(steps, values, strict=True)
        expected["v"] += [(line["last_step"], value) for value in line["values"].values()]
    history = History()
    history.extend(lines)
    for name, samples in expected.items():
        assert (name in history.series) == bool(samples)
        if samples:
            steps, values = history.series[name].raw()
            assert steps.tolist() == [step for step, _ in samples]
            wanted = [math.nan if value is None else value for _, value in samples]
            np.testing.assert_array_equal(values, np.array(wanted, np.float64))
