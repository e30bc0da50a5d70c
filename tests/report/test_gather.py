"""A report holds what is known, and is good with a training loss alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from example_runs import CASES, case_of, judged, write_run

from trimtab.doctor import Case, open_case
from trimtab.doctor.diagnose import diagnose
from trimtab.events import ArtifactLogged, DecisionTaken, Rollback, RunEnded, RunStarted, Stop
from trimtab.report import render_html, render_markdown
from trimtab.report.figures import learning_curves
from trimtab.report.gather import SHOWN_SAMPLES, gather
from trimtab.runs import History


def test_a_loss_alone() -> None:
    report = gather(None, *CASES["loss_alone"]())
    assert [figure.label for figure in report.figures] == ["steps", "training loss"]
    assert report.figures[1].note.endswith("; the mean of its last twentieth")
    assert (report.status, report.path, report.command, report.base) == ("", "", "", "")
    assert list(report.curves) == ["train/loss"]


def test_the_gap_is_worked_out_where_it_was_not_measured() -> None:
    case = case_of({"train/loss": np.full(100, 2.0)}, {"validation/loss": {50: 2.5, 100: 3.0}})
    report = gather(None, case, judged(case, "x", []))
    assert report.curves["validation - training loss"].mean.tolist() == [0.5, 1.0]
    assert report.best is not None
    assert (report.best.step, report.best.value) == (50, 2.5)


def test_a_killed_run_and_one_that_ended(tmp_path: Path) -> None:
    for ends, status, time in ((False, "killed", False), (True, "stopped", True)):
        run = write_run(tmp_path / status, ends=ends)
        case = open_case(run)
        report = gather(run, case, diagnose(case, run.name))
        assert report.status == status
        assert bool(report.time_split) == time
        assert [sample.step for sample in report.samples] == [100, 200, 300, 400]
        assert report.num_saves == 4
        assert report.command.startswith("trimtab train gpt-1m")
        assert report.path == f"runs/{status}"
        assert ("optimizer.learning_rate", 0.001, 0.003) in report.differences


def test_whom_alerts_go_to_is_in_no_report() -> None:
    case = case_of({"train/loss": np.ones(100)})
    case = replace(case, config={"name": "gpt-1m", "seed": 7, "alerts.email.recipients": ["me@example.org"]})
    assert gather(None, case, judged(case, "x", [])).differences == (("seed", 0, 7),)


def test_of_many_samples_the_first_and_the_last_are_among_those_shown() -> None:
    case = case_of({"train/loss": np.ones(100)})
    for step in range(100):
        case.history.observe(ArtifactLogged(step, "sample", "sample-0", "text"))
    steps = [sample.step for sample in gather(None, case, judged(case, "x", [])).samples]
    assert len(steps) == SHOWN_SAMPLES
    assert (steps[0], steps[-1]) == (0, 99)


def test_it_is_told_why_an_attempt_went_on() -> None:
    history = History()
    ended = RunEnded(30, "interrupted", "signal SIGINT", None, None, None, 1.0, {})
    starts = (
        RunStarted(0, 1, 0, None, 100),
        ended,
        RunStarted(30, 2, 1, 30, 100),
        RunStarted(60, 3, 2, 60, 100),
        DecisionTaken(45, 45, "saving", Stop("enough")),
        DecisionTaken(70, 68, "recovery", Rollback("a spike", 55), details={"positions": [[440, 460]]}),
        RunStarted(50, 3, 3, 50, 100),
    )
    for event in starts:
        history.observe(event)
    case = Case(history, {})
    told = gather(None, case, judged(case, "x", [])).steered()
    assert [step for step, _ in told] == sorted(step for step, _ in told)
    assert (30, "attempt 2 goes on; the one before: interrupted, signal SIGINT") in told
    assert (60, "attempt 3 goes on; the one before: killed, no end was written") in told
    back = "at step 70 the run went back to step 50 and left out data positions 440 to 459: a spike"
    assert (50, back) in told


def test_of_a_classification_texts_are_counted() -> None:
    per_step = {"train/loss": np.full(100, 0.5), "tokens": np.full(100, 16.0), "tokens_per_second": np.full(100, 50.0)}
    case = case_of(per_step, {"validation/accuracy": {50: 0.9, 100: 0.95}}, config={})
    facts = {"task": "classification", "sequences_per_epoch": 800, "tokens_per_epoch": 16_000}
    several = {"identity": {"config.task.multi_label": True}, "epochs": 2.0}
    for known, counted, epochs in ((facts, "texts", "2.00"), (facts | several, "labels", "2.00"), ({}, "tokens", "")):
        case = replace(case, facts=known)
        report = gather(None, case, judged(case, "x", []))
        notes = {figure.label: (figure.value, figure.note) for figure in report.figures}
        assert notes["steps"] == ("100", f"1.60k {counted}" + (f", {epochs} epochs" if epochs else ""))
        of = f"of {counted}, " if known else ""  # of a task that is not known nothing is named
        assert notes["validation accuracy"] == ("95.0 %", f"{of}at best")
        assert notes["speed"][0] == "50 tok/s"
        assert ("nats per text" in learning_curves(report)) == (counted == "texts")
    for task in ("masked_lm", "seq2seq"):  # whose targets are a part of the tokens
        assert replace(case, facts=facts | {"task": task, "epochs": 3.0}).epochs() == 3.0
    assert replace(case, facts=facts | {"task": "causal_lm"}).epochs() == 0.1


def test_a_loss_of_which_no_task_is_known_has_no_unit() -> None:
    case = case_of({"train/loss": np.ones(100)}, config={})
    for facts, unit in (({"settings": {}}, False), ({"task": "regression"}, False), ({"task": "causal_lm"}, True)):
        case = replace(case, facts=facts)
        assert ("nats per token" in learning_curves(gather(None, case, judged(case, "x", [])))) == unit


def test_a_loop_of_another_program_is_not_trained_from_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    case, diagnosis = CASES["not_a_number"]()
    for source in ("loop", "config"):
        run = write_run(tmp_path / source)
        run.write_json(run.environment, {"source": source, "command": ["/opt/bin/train.py"]})
        report = gather(run, case, diagnosis)
        for page in (render_html(report), render_markdown(report)):
            assert ("trimtab train" in page) == (source == "config")
