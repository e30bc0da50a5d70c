"""What a run came to, from its files alone."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.errors import StorageError
from trimtab.events import (
    Adjust,
    DecisionTaken,
    EvaluationEnded,
    FindingsChanged,
    Rollback,
    RunEnded,
    RunStarted,
    Save,
    StepsEnded,
    Stop,
)
from trimtab.runs import Recorder, RunDirectory
from trimtab.runs.checkpoints import commit, step_folder, write_manifest
from trimtab.runs.lock import Lock
from trimtab.runs.reasons import next_command, reason_and_hint, reason_in_a_line, would_repeat
from trimtab.runs.record import RecordReader
from trimtab.runs.summary import list_summaries, render, render_list, summarize


def save(run: RunDirectory, step: int, loss: float, branch: int) -> None:
    temporary = run.checkpoints / ".tmp-save"
    temporary.mkdir(parents=True)
    description = {
        "schema": 1,
        "step": step,
        "branch": branch,
        "reason": "best",
        "metrics": {"validation/loss": loss},
        "created_seconds": 1.0,
    }
    (temporary / "checkpoint.json").write_text(json.dumps(description))
    write_manifest(temporary)
    commit(temporary, run.checkpoints / step_folder(step))


def window(first: int, loss: float) -> StepsEnded:
    per_step = {"train/loss": np.full(10, loss), "tokens": np.full(10, 100.0), "skipped": np.eye(10)[0]}
    return StepsEnded(first, first + 9, per_step, {"tokens_per_second": 3121.0})


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run of two attempts: killed at 40, resumed from 20, stopped at 40."""
    run = RunDirectory.create(tmp_path, "demo")
    recorder = Recorder.open(run)
    recorder.record(RunStarted(0, 1, 0, None, 100))
    for first in (1, 11, 21, 31):
        recorder.record(window(first, 50.0 / first))
    recorder.record(EvaluationEnded(20, {"validation/loss": 2.0}, 0.1))
    save(run, 20, 2.0, 0)
    recorder.record(EvaluationEnded(40, {"validation/loss": 0.1}, 0.1))
    recorder.record(DecisionTaken(40, 30, "spike", Rollback("a spike", 25)))
    recorder.close()
    recorder = Recorder.open(run, branch=1)
    recorder.record(RunStarted(20, 2, 1, 20, 100))
    for first in (21, 31):
        recorder.record(window(first, 40.0 / first))
    recorder.record(EvaluationEnded(40, {"validation/loss": 2.5, "validation/bits_per_byte": 1.456}, 0.1))
    recorder.record(DecisionTaken(40, 30, "save_best", Save("best")))
    recorder.record(DecisionTaken(40, 30, "plateau", Adjust("flat", "learning_rate", 0.5), "overruled", "too late"))
    recorder.record(FindingsChanged(40, ({"severity": "warning", "code": "overfitting", "cause": "the gap grows"},)))
    save(run, 40, 2.5, 1)
    split = {"training": 60.0, "evaluation": 20.0}
    recorder.record(RunEnded(40, "stopped", "no \x1b[31mimprovement", 20, 2.0, 20, 12.0, split))
    recorder.close()
    return run


def test_the_surviving_branch_is_told(run: RunDirectory) -> None:
    summary = summarize(run)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert (summary["status"], summary["step"], summary["total_steps"]) == ("stopped", 40, 100)
    assert summary["attempts"] == 2
    assert [branch["resumed_from"] for branch in summary["branches"]] == [None, 20]
    assert summary["best"] == {"metric": "validation/loss", "value": 2.0, "step": 20, "bits_per_byte": None}
    assert summary["validation"]["step"] == 40
    assert summary["tokens"] == 4000
    assert summary["skipped"] == 4
    assert summary["evaluations"] == 2
    assert summary["train_loss"] == pytest.approx(40 / 31)
    assert summary["seconds"] == 80.0
    assert [decision["controller"] for decision in summary["decisions"]] == ["spike", "save_best", "plateau"]
    assert [(one["step"], one["whole"]) for one in summary["checkpoints"]] == [(20, True), (40, True)]


def test_the_page_tells_all_and_ends_with_what_to_run(run: RunDirectory) -> None:
    page = render(summarize(run))
    lines = page.splitlines()
    assert lines[0] == f"{run.name}: stopped"
    assert lines[-1] == f"next: trimtab generate {run.path}"
    assert "40 of 100 in 2 attempts, resumed at step 20" in page
    assert "no improvement" in page
    assert "attempt     1 ended at step 40, killed: no end was written" in page
    assert "validation/loss 2.0000 at step 20, restored" in page
    assert "step 40: loss 2.5000, 1.46 bits/byte" in page
    assert "spike: roll back before step 25: a spike" in page
    assert "plateau: adjust learning_rate (0.5) (overruled): flat (too late)" in page
    assert "save_best" not in page
    assert "warning overfitting: the gap grows" in page
    assert "training 75 %, evaluation 25 %" in page
    assert all(character == "\n" or character.isprintable() for character in page)


def test_a_killed_run_says_how_it_ended_and_what_is_redone(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "killed")
    recorder = Recorder.open(run)
    recorder.record(RunStarted(0, 1, 0, None, 100))
    recorder.record(window(1, 2.0))
    recorder.close()
    assert "resume      goes on from the beginning; 10 steps at least" in render(summarize(run))
    save(run, 10, 2.0, 0)
    assert "resume      goes on from step 10\n" in render(summarize(run))
    recorder = Recorder.open(run)
    recorder.record(window(11, 2.0))
    recorder.close()
    summary = summarize(run)
    assert (summary["status"], summary["step"], summary["resumes_from"]) == ("killed", 20, 10)
    page = render(summary)
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(summary["last_seconds"]))
    assert f"ended       killed: no end was written; step 20 was seen last, at {when}" in page
    assert "resume      goes on from step 10; 10 steps at least will be done again" in page
    assert page.endswith(f"next: trimtab resume {run.path}")


def test_a_run_that_a_process_has_is_not_said_to_have_ended(tmp_path: Path) -> None:
    """Between an attempt's last line and the end of its process, and before the first line of the next."""
    run = RunDirectory.create(tmp_path, "run")
    (run.path / "config.yaml").write_text("{}")
    with Lock.acquire(run.lock):
        assert summarize(run)["phase"] == "starting"
        recorder = Recorder.open(run)
        recorder.record(RunStarted(0, 1, 0, None, 100))
        recorder.record(window(1, 5.0))
        recorder.close()
        assert summarize(run)["phase"] == "training"
        recorder = Recorder.open(run)
        recorder.record(RunEnded(10, "interrupted", "SIGTERM received, all is saved", None, None, None, 1.0))
        recorder.close()
        assert (found := summarize(run))["phase"] == "closing"
        assert "is over (SIGTERM received, all is saved)" in render(found)
    page = render(summarize(run))
    assert "run: interrupted" in page
    assert "ended       SIGTERM" in page
    # The next process has the lock, and has written nothing yet: a lock as of one that began after that end.
    with Lock.acquire(run.lock):
        holder = json.loads(run.lock.read_text())
        begun = RecordReader(run.record).read()[-1]["time"] + 1.0
        run.lock.write_text(json.dumps(holder | {"process_started": begun}).ljust(400))
        found = summarize(run)
    assert (found["status"], found["phase"]) == ("running", "starting")
    assert found["ended"] is found["resumes_from"] is None
    page = render(found)
    assert "interrupted: SIGTERM received" in page  # of the attempt before
    assert "about to go on" in page


def test_the_list_agrees_with_the_page(run: RunDirectory) -> None:
    (run.path.parent / "new").mkdir()
    (run.path.parent / "new" / "config.yaml").touch()
    outline, new = list_summaries(run.path.parent)
    whole = summarize(run)
    assert outline == {key: whole[key] for key in outline}
    assert (new["status"], new["step"], new["best"]) == ("new", 0, None)
    table = render_list([outline, new], run.path.parent).splitlines()
    assert table[0].split() == ["run", "status", "steps", "best", "at", "step", "train", "loss", "time"]
    assert table[1].split() == [run.name, "stopped", "40/100", "2.0000", "20", "1.2903", "1m", "20s"]
    assert table[-1].startswith("next: trimtab show")
    assert render_list([], Path("runs")) == "no runs in runs\nnext: trimtab demo"
    assert render(summarize(RunDirectory(run.path.parent / "new"))).startswith("new: new")


def test_a_page_fits_the_terminal(run: RunDirectory) -> None:
    found = summarize(run) | {"diagnosis": {"verdict": "healthy", "summary": "It went. " * 40, "findings": []}}
    narrow = render(found, 72).splitlines()
    assert max(map(len, narrow[:-1])) <= 72
    assert " ".join(" ".join(narrow).split()) == " ".join(render(found).split())


def test_a_best_value_on_leaked_texts_is_marked(run: RunDirectory) -> None:
    facts = {"validation": {"documents": 10}, "leakage": 5}
    run.facts.write_text(json.dumps(facts | {"schema": 1}))
    table = render_list(list_summaries(run.path.parent), run.path.parent)
    assert "2.0000*" in table
    assert "* judged on what it was trained on" in table
    run.facts.write_text(json.dumps({"schema": 1, "validation": {"documents": 1000}, "leakage": 5}))
    assert "*" not in render_list(list_summaries(run.path.parent), run.path.parent)


def test_long_records_are_outlined_from_their_end(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "long")
    recorder = Recorder.open(run)
    recorder.record(RunStarted(0, 1, 0, None, 50_000))
    generator = np.random.default_rng(0)
    for first in range(1, 20_000, 10):
        loss = generator.random(10)
        recorder.record(StepsEnded(first, first + 9, {"train/loss": loss, "grad_norm": loss}, {}))
    recorder.close()
    assert run.record.stat().st_size > 500_000
    seconds = []
    for _ in range(3):
        begun = time.process_time()
        (outline,) = list_summaries(tmp_path)
        seconds.append(time.process_time() - begun)
    assert min(seconds) < 0.1
    assert (outline["step"], outline["total_steps"], outline["status"]) == (20_000, 50_000, "killed")
    assert outline == {key: value for key, value in summarize(run).items() if key in outline}


def test_the_metric_that_chooses_checkpoints_chooses_the_best(run: RunDirectory) -> None:
    run.write_json(run.facts, {"identity": {"config.checkpoint.metric": "validation/bits_per_byte"}})
    assert summarize(run)["best"] == {
        "metric": "validation/bits_per_byte",
        "value": 1.456,
        "step": 40,
        "bits_per_byte": 1.456,
    }


def test_a_damaged_record_is_told(run: RunDirectory) -> None:
    data = bytearray(run.record.read_bytes())
    data[len(data) // 2] ^= 1
    run.record.write_bytes(data)
    summary = summarize(run)
    assert summary["damaged_lines"] == 1
    assert "1 line of the record left out" in render(summary)


def test_what_to_run_next_follows_the_status() -> None:
    assert next_command("killed", "runs/a b") == "trimtab resume 'runs/a b'"
    assert next_command("finished", "runs/a") == "trimtab generate runs/a"


@pytest.mark.parametrize("status", ["finished", "stopped", "interrupted", "failed", "killed", "running"])
def test_what_the_command_line_refuses_is_not_proposed(status: str) -> None:
    """It builds no model of a run that Python or another trainer began."""
    for source in ("huggingface", "lightning"):
        assert next_command(status, "runs/a", source) == f"trimtab {'show' if status == 'running' else 'report'} runs/a"
    unfinished = status in ("interrupted", "failed", "killed")
    expected = (
        "in Python: Trainer(config, model=…, run='runs/a b').fit()" if unfinished else "trimtab report 'runs/a b'"
    )
    if status == "running":
        expected = "trimtab show 'runs/a b'"
    assert next_command(status, "runs/a b", "python") == expected


FULL_DISK = str(StorageError("runs/a/record.jsonl: cannot be written (No space left)", hint="free space, then resume"))


def ended(tmp_path: Path, *events: Any) -> str:
    run = RunDirectory.create(tmp_path, "ended")
    recorder = Recorder.open(run)
    recorder.record(RunStarted(0, 1, 0, None, 100))
    recorder.record(window(1, 2.0))
    for event in events:
        recorder.record(event)
    recorder.close()
    save(run, 5, 2.0, 0)
    return render(summarize(run))


def test_a_reason_has_no_name_of_ours_and_its_hint_apart(tmp_path: Path) -> None:
    reason = f"StorageError: {FULL_DISK}"
    told = "runs/a/record.jsonl: cannot be written (No space left)"
    assert reason_and_hint(reason) == (told, "free space, then resume")
    assert reason_in_a_line(reason) == f"{told} (free space, then resume)"
    assert reason_and_hint("ZeroDivisionError: division by zero") == ("ZeroDivisionError: division by zero", "")
    page = ended(tmp_path, RunEnded(10, "failed", reason, None, None, None, 1.0))
    assert f"  ended       {told}\n  hint        free space, then resume\n" in page
    assert page.endswith("trimtab resume " + page.rpartition(" ")[2])


def test_going_on_after_numbers_that_failed_comes_to_the_same(tmp_path: Path) -> None:
    stop = DecisionTaken(10, 10, "recovery", Stop("20 updates in a row were skipped", exit_code=4))
    end = RunEnded(10, "failed", "20 updates in a row were skipped", None, None, None, 1.0)
    page = ended(tmp_path, stop, end)
    run = page.rpartition(" ")[2]
    assert page.endswith(f"next: trimtab doctor {run}")
    assert "goes on from step 5" in page
    assert "as it is, it would come to the same" in page
    assert f"trimtab train {run}/config.yaml SECTION.KEY=VALUE --run {run} --accept-drift" in page
    assert would_repeat([stop, end])
    assert would_repeat([RunEnded(10, "failed", "NumericsError: no finite loss", None, None, None, 1.0)])
    assert not would_repeat([DecisionTaken(10, 10, "patience", Stop("no gain")), end])
    later = [RunStarted(5, 2, 1, 5, 100), RunEnded(9, "interrupted", "", None, None, None, 1.0)]
    assert not would_repeat([stop, end, *later])
    assert not would_repeat([RunEnded(10, "failed", f"StorageError: {FULL_DISK}", None, None, None, 1.0)])


def test_attempts_from_one_step_are_counted_and_rollbacks_are_no_attempts(tmp_path: Path) -> None:
    starts = [
        RunStarted(5, 1, 1, 5, 100),  # a rollback
        RunStarted(50, 2, 2, 50, 100),
        RunStarted(50, 3, 3, 50, 100),
        RunStarted(40, 3, 4, 40, 100),  # another
        RunStarted(0, 4, 5, None, 100),
    ]
    page = ended(tmp_path, *starts)
    assert "in 4 attempts, resumed at step 50 (2 times), the beginning\n" in page


def test_skipped_updates_are_told_beside_all(run: RunDirectory) -> None:
    assert "skipped     4 of 40 updates, which changed nothing\n" in render(summarize(run))


def test_rules_that_were_met_are_told(run: RunDirectory) -> None:
    lines = [
        {"step": step, "rule": "high", "text": f"demo, step {step}: high: \x1b[2Jtrain/loss"} for step in range(1, 8)
    ]
    run.alerts.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"torn')
    page = render(summarize(run))
    assert "  rule        step 4, high: train/loss\n" in page
    assert "step 7, high: train/loss\n" in page
    assert "the newest of 7 (alerts.jsonl has all)" in page


def test_what_resume_refuses_is_not_said_to_go_on(tmp_path: Path) -> None:
    for source, goes_on in (("loop", False), ("config", True)):
        run = RunDirectory.create_at(tmp_path / source)
        run.write_json(run.environment, {"source": source})
        recorder = Recorder.open(run)
        recorder.record(RunStarted(0, 1, 0, None, 10))
        recorder.record(RunEnded(5, "failed", "ValueError: boom", None, None, None, 1.0))
        recorder.close()
        summary = summarize(run) | {"diagnosis": {"verdict": "attention", "summary": "So.", "findings": []}}
        assert ("goes on from" in render(summary)) == goes_on
        assert "needs attention: So." in render(summary)


def test_the_list_has_the_steps_of_a_loop_that_planned_none(tmp_path: Path) -> None:
    run = RunDirectory.create_at(tmp_path / "loop")
    recorder = Recorder.open(run)
    recorder.record(RunStarted(0, 1, 0, None, 0))
    recorder.record(window(1, 3.0))
    recorder.record(RunEnded(10, "finished", "the loop came to its end", None, None, None, 1.0))
    recorder.close()
    (row,) = [line for line in render_list(list_summaries(tmp_path), tmp_path).splitlines() if line.startswith("loop")]
    assert row.split()[:3] == ["loop", "finished", "10"]
