"""Sound logs whose course changes by plan, and what is said between printed rows: none of them alarms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sound_logs import courses, printed
from sound_logs.judge import alarms, write

from trimtab.doctor.load import open_foreign_case
from trimtab.runs.importers.clocks import durations
from trimtab.runs.importers.read import read_foreign
from trimtab.runs.importers.resumes import Resumes

KINDS = courses.KINDS | printed.KINDS


@pytest.mark.parametrize("name", KINDS)
def test_a_sound_log_does_not_alarm(tmp_path: Path, name: str) -> None:
    assert [alarms(name, KINDS[name], seed, tmp_path) for seed in range(2)] == [[], []]


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_sound_log_does_not_alarm_whatever_the_seed(tmp_path: Path, name: str) -> None:
    assert [alarms(name, KINDS[name], seed, tmp_path) for seed in range(2, 7)] == [[]] * 5


@pytest.mark.parametrize(
    ("name", "num_rows", "num_resumes"),
    [
        ("resumed_at_a_step_with_commas", 60, 1),
        ("rows_that_say_they_are_resumed", 80, 1),
        ("not_resumed", 60, 0),
        ("teacher_that_is_loaded", 60, 0),
        ("best_that_is_loaded_for_a_test", 60, 0),
        ("training_that_goes_on_after_each_evaluation", 60, 0),
        ("bars_of_epochs", 60, 0),
        ("batches_of_evaluations", 120, 0),
        ("bars_of_evaluations", 500, 0),
    ],
)
def test_every_row_is_read_and_a_resume_is_what_the_rows_bear_out(
    tmp_path: Path, name: str, num_rows: int, num_resumes: int
) -> None:
    file = tmp_path / "run.log"
    write(printed.KINDS[name](np.random.default_rng(1)), file)
    history = open_foreign_case(file)[0].history
    assert (len(history.series["train/loss"].finite()[0]) >= num_rows, len(history.starts)) == (True, num_resumes)
    judged = name.endswith("each_evaluation") or name == "bars_of_evaluations"
    assert ("validation/loss" in history.series) == judged


@pytest.mark.parametrize(
    ("said", "is_one"),
    [
        ("evaluation finished, training resumed", False),
        ("data loader resumed", False),
        ("profiler paused; resumed", False),
        ("wandb: Syncing run resumed-lake-4", False),
        ("Resuming training at step 200 after evaluation", False),
        ("Resuming from idle: clocks restored", False),
        ("loaded checkpoint for evaluation at step 200", False),
        ("loaded checkpoint at step 200", True),
        ("Training resumed at step 200", True),
        ("Resuming training from out", True),
        ("resumed from checkpoint at step 200", True),
    ],
)
def test_what_is_resumed_is_the_run(said: str, is_one: bool) -> None:
    resumes = Resumes()
    for step in range(10, 301, 10):
        if step == 210:
            resumes.hears(said)
        resumes.row(float(step), tagged=False)
    assert bool(resumes.begun) == is_one


def test_a_checkpoint_that_rows_go_on_from_is_a_resume(tmp_path: Path) -> None:
    lines = [f"step {10 * row} | loss {3 / row:.4f}" for row in range(1, 31)]
    lines.insert(20, "loaded checkpoint last.pt (step 200)")
    file = tmp_path / "run.log"
    file.write_text("\n".join(lines) + "\n")
    assert [start.resumed_from for start in read_foreign(file).history.starts] == [201]


@pytest.mark.parametrize(
    ("seconds", "judged", "told"),
    [
        ([5.0, 5.2, 4.9, 5.1], [4.0, 3.0, 2.5, 2.0], [5.0, 5.2, 4.9, 5.1]),
        ([5.0, 5.0, 5.0, 5.0], [4.0, 3.0, 2.5, 2.0], [5.0, 5.0, 5.0, 5.0]),
        ([5.0, 5.0, 5.2, 5.2, 4.9, 4.9], [4.0, 4.0, 3.0, 3.0, 2.5, 2.5], [5.0, 5.2, 4.9]),
        ([5.0, 10.0, 15.0, 20.0], [4.0, 3.0, 2.5, 2.0], []),
        ([1.7e9, 1.7e9 + 5], [4.0, 3.0], []),
    ],
)
def test_seconds_of_evaluations_are_no_clock(seconds: list[float], judged: list[float], told: list[float]) -> None:
    assert durations(np.array(seconds), np.array(judged)).tolist() == told


def test_an_evaluation_that_is_written_in_each_row_is_read_once(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    write(courses.KINDS["evaluations_repeated_in_each_row"](np.random.default_rng(0)), file)
    steps, _ = read_foreign(file).history.series["validation/loss"].finite()
    assert steps.tolist() == [10, 110, 210, 310, 410, 510]
