"""Several ranks: reduced against a plain calculation, and read from their records, torn ones included."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trimtab.doctor import open_case
from trimtab.events import EvaluationEnded, RunStarted, StepsEnded
from trimtab.runs import History, Recorder, RunDirectory
from trimtab.runs.ranks import as_metrics, merged, over_ranks, read_ranks
from trimtab.runs.record import RecordWriter, lines_of
from trimtab.runs.summary import render, summarize


@given(
    arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(0, 6)), elements=st.floats(-9, 9) | st.just(math.nan))
)
def test_reduced_as_by_hand(values: np.ndarray) -> None:
    reduced = over_ranks(values)
    for column in range(values.shape[1]):
        known = [(value, rank) for rank, value in enumerate(values[:, column]) if not math.isnan(value)]
        found = tuple(part[column] for part in reduced)
        if not known:
            assert all(math.isnan(value) for value in found[:3])
            assert found[3:] == (-1, -1)
            continue
        numbers = [value for value, _ in known]
        assert found[0] == min(numbers)
        assert found[2] == max(numbers)
        assert found[1] == pytest.approx(sum(numbers) / len(numbers))
        assert found[3] == min(rank for value, rank in known if value == min(numbers))
        assert found[4] == min(rank for value, rank in known if value == max(numbers))


def test_infinite_values_have_a_rank_and_names_a_value() -> None:
    reduced = over_ranks(np.array([[1.0, math.nan], [-math.inf, math.nan], [math.inf, math.nan]]))
    assert (reduced.minimum[0], reduced.maximum[0]) == (-math.inf, math.inf)
    assert (reduced.lowest_rank[0], reduced.highest_rank[0]) == (1, 2)
    found = as_metrics(["step_seconds", "unknown"], reduced)
    assert set(found) == {f"ranks/step_seconds/{how}" for how in ("min", "mean", "max", "min_rank", "max_rank")}
    with pytest.raises(ValueError, match=r"\(0, 3\)"):
        over_ranks(np.empty((0, 3)))


def write(run: RunDirectory, rank: int, seconds: list[float], *, branch: int = 0, first: int = 1) -> None:
    """A record of one rank with windows of two steps."""
    writer = RecordWriter(run.record_of_rank(rank), branch)
    if rank == 0:
        back = first - 1 if branch else None
        writer.append(*lines_of(RunStarted(first - 1, 1, branch, back, 100, {})))
    for index in range(0, len(seconds), 2):
        part = np.array(seconds[index : index + 2])
        start = first + index
        writer.append(
            *lines_of(StepsEnded(start, start + len(part) - 1, {"step_seconds": part}, {"memory_bytes": 5.0}))
        )
    if rank == 0:
        writer.append(*lines_of(EvaluationEnded(first, {"validation/loss": 2.0}, 1.0)))
    writer.close()


def series(history: History, name: str) -> dict[int, float]:
    steps, values = history.series[name].raw()
    return dict(zip(steps.tolist(), values.tolist(), strict=True))


def test_records_are_merged_by_branch_step_and_rank(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    write(run, 0, [1.0, 1.0, 1.0, 1.0])
    write(run, 1, [2.0, 3.0, 2.0, 2.0])
    write(run, 3, [0.5, 0.5])
    shown = summarize(run)
    assert shown["ranks"] == 3
    assert "rank 0's" in render(shown)
    lines, damaged = read_ranks(run.record)
    assert damaged == 0
    places = [(line["branch"], line["step"], line["rank"]) for line in merged(lines)]
    assert places == sorted(places)
    assert {rank for _, _, rank in places} == {0, 1, 3}
    history = open_case(run).history
    assert series(history, "step_seconds") == {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0}  # rank 0 is the run's own
    assert series(history, "rank/1/step_seconds") == {1: 2.0, 2: 3.0, 3: 2.0, 4: 2.0}
    assert series(history, "rank/3/step_seconds") == {1: 0.5, 2: 0.5}
    assert series(history, "ranks/step_seconds/max") == {1: 2.0, 2: 3.0, 3: 2.0, 4: 2.0}
    assert series(history, "ranks/step_seconds/max_rank") == dict.fromkeys(range(1, 5), 1.0)
    assert series(history, "ranks/step_seconds/min_rank") == {1: 3.0, 2: 3.0, 3: 0.0, 4: 0.0}
    assert series(history, "ranks/step_seconds/mean") == {1: 3.5 / 3, 2: 1.5, 3: 1.5, 4: 1.5}
    assert "ranks/validation/loss/max" not in history.series  # of rank 0 alone
    assert "rank/1/step_seconds" not in History.read(run.record).series
    before = History.read(run.record, ranks=True, windows_before=3)
    assert series(before, "rank/1/step_seconds") == {1: 2.0, 2: 3.0}


def test_a_recorder_of_a_rank_writes_beside_the_run(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    write(run, 0, [1.0, 1.0])
    recorder = Recorder.open(run, rank=2)
    recorder.record(StepsEnded(1, 2, {"step_seconds": np.array([4.0, 5.0])}, {}, {"layer/a/grad_norm": 1.0}))
    recorder.close()
    assert not run.statistics.exists()
    assert series(History.read(run.record, ranks=True), "rank/2/step_seconds") == {1: 4.0, 2: 5.0}


def test_a_branch_that_was_left_is_left_by_every_rank(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for rank in (0, 1):
        write(run, rank, [1.0 + rank] * 6)
    write(run, 0, [5.0, 5.0], branch=1, first=3)
    history = History.read(run.record, ranks=True)
    assert series(history, "rank/1/step_seconds") == {1: 2.0, 2: 2.0}  # it died before it wrote more
    write(run, 1, [6.0, 6.0], branch=1, first=3)
    history = History.read(run.record, ranks=True)
    assert series(history, "step_seconds") == {1: 1.0, 2: 1.0, 3: 5.0, 4: 5.0}
    assert series(history, "rank/1/step_seconds") == {1: 2.0, 2: 2.0, 3: 6.0, 4: 6.0}
    whole = History.read(run.record, ranks=True, all_branches=True)
    assert whole.series["rank/1/step_seconds"].num_samples == 8


def test_torn_files_of_a_rank_cost_what_is_torn(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    write(run, 0, [1.0] * 6)
    write(run, 1, [2.0] * 6)
    path = run.record_of_rank(1)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 11):
        path.write_bytes(whole[:cut])
        history = History.read(run.record, ranks=True)
        assert series(history, "step_seconds") == dict.fromkeys(range(1, 7), 1.0)
        found = series(history, "rank/1/step_seconds") if "rank/1/step_seconds" in history.series else {}
        assert found == dict.fromkeys(range(1, len(found) + 1), 2.0)
        assert len(found) >= 2 * whole[:cut].count(b"\n")
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    path.write_bytes(damaged)
    history = History.read(run.record, ranks=True)
    assert history.damaged_lines == 1
    assert len(series(history, "rank/1/step_seconds")) == 4
    path.unlink()
    path.mkdir()
    assert "rank/1/step_seconds" not in History.read(run.record, ranks=True).series
    (tmp_path / "record.rank-x.jsonl").write_text("nothing of ours")
    assert series(History.read(run.record, ranks=True), "step_seconds")


def test_of_many_ranks_only_what_they_come_to_is_kept(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for rank in range(20):
        write(run, rank, [float(rank)])
    history = History.read(run.record, ranks=True)
    assert not [name for name in history.series if name.startswith("rank/")]
    assert series(history, "ranks/step_seconds/max") == {1: 19.0}
    assert series(history, "ranks/step_seconds/max_rank") == {1: 19.0}
