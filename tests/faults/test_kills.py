"""Kills, signals and damage, through the command line; bits are judged by a script that knows nothing of trimtab."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
from pathlib import Path

import pytest
from processes import SIGKILL, SIGTERM, Cli, events, wait_for


def decisions(run: Path) -> list[tuple[int, str, str]]:
    """Step, controller and reason of every decision on the surviving branch, but what the clock tells the doctor."""
    from trimtab.runs import read_record

    return [
        (line["step"], line["controller"], line["decision"]["reason"])
        for line in read_record(run / "record.jsonl")
        if line["event"] == "DecisionTaken" and not line["decision"]["reason"].startswith("input-bound")
    ]


def losses(run: Path) -> dict[int, object]:
    """First step of each window to its losses, on the surviving branch."""
    from trimtab.runs import read_record

    told: dict[int, object] = {}
    for line in read_record(run / "record.jsonl"):
        if line["event"] == "StepsEnded":
            assert line["first_step"] not in told
            told[line["first_step"]] = line["per_step"]["train/loss"]
    return told


def test_five_kills_then_the_same_bits(cli: Cli, whole: tuple[Path, str]) -> None:
    """SIGKILL five times at steps spread over the run: same weights, state, losses and decisions in the end."""
    run = cli.folder / "run"
    order = random.Random(3)
    for number in range(5):
        # A step within the next stretch of the run, never the same distance from a save.
        wanted = 30 + 35 * number + order.randrange(0, 12)
        process = cli.start("train", cli.config, "--run", run)
        deadline_text = f'"last_step":{10 * (wanted // 10)}'
        wait_for(run / "record.jsonl", deadline_text, process)
        process.send_signal(SIGKILL)
        process.communicate()
        assert process.returncode == -SIGKILL
    output = cli.train(run)
    assert "finished" in output or "stopped" in output
    assert cli.same_bits(run, whole[0]) == "same"
    assert losses(run) == losses(whole[0])
    assert decisions(run) == decisions(whole[0])
    branches = {json.loads(line)["branch"] for line in events(run, "RunStarted")}
    assert branches == set(range(6))


def test_sigterm_saves_and_exits_75_and_goes_on_to_the_same_bits(cli: Cli, whole: tuple[Path, str]) -> None:
    run = cli.folder / "run"
    code, output = cli.train_until(run, '"last_step":60', SIGTERM)
    assert code == 75, output
    assert "trimtab resume" in output or "run again" in output
    ended = json.loads(events(run, "RunEnded")[-1])
    saved = json.loads(events(run, "CheckpointSaved")[-1])
    assert ended["status"] == "interrupted"
    assert saved["step"] == ended["step"]
    cli.run("resume", run)
    assert cli.same_bits(run, whole[0]) == "same"
    assert losses(run) == losses(whole[0])


def test_sigusr1_and_the_file_save_at_once_and_training_goes_on_to_the_same_bits(
    cli: Cli, whole: tuple[Path, str]
) -> None:
    run = cli.folder / "run"
    process = cli.start("train", cli.config, "--run", run)
    wait_for(run / "record.jsonl", '"last_step":60', process)
    process.send_signal(signal.SIGUSR1)
    wait_for(run / "record.jsonl", '"reason":"SIGUSR1 received"', process)
    (run / "SAVE").touch()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    reasons = [json.loads(line)["reason"] for line in events(run, "CheckpointSaved")]
    assert any("SIGUSR1 received" in reason for reason in reasons)
    assert any("the file SAVE was found" in reason for reason in reasons)
    assert "SIGUSR1 received" in output
    assert cli.same_bits(run, whole[0]) == "same"


def test_a_finished_run_says_so(whole: tuple[Path, str], cli: Cli) -> None:
    copy = cli.folder / "run"
    shutil.copytree(whole[0], copy)
    before = (copy / "record.jsonl").read_bytes()
    output = cli.run("train", whole[0].parent / "config.yaml", "--run", copy)
    assert "already" in output
    assert (copy / "record.jsonl").read_bytes() == before
    output = cli.run("train", whole[0].parent / "config.yaml", "training.steps=300", "--run", copy, expect=2)
    assert "training.steps: was 240, now 300" in output


def test_a_second_process_is_refused_and_a_stale_lock_is_taken_over(cli: Cli) -> None:
    run = cli.folder / "run"
    process = cli.start("train", cli.config, "training.steps=100000", "--run", run)
    wait_for(run / "record.jsonl", '"last_step":10', process)
    output = cli.train(run, "training.steps=100000", expect=5)
    assert str(process.pid) in output
    process.send_signal(SIGKILL)
    process.communicate()
    code, output = cli.train_until(run, '"attempt":2', SIGTERM, "training.steps=100000")
    assert code == 75, output


def test_sigterm_before_the_first_step_exits_75(cli: Cli) -> None:
    run = cli.folder / "run"
    process = cli.start("train", cli.config, "--run", run)
    wait_for(run / "lock.json", "pid", process)
    process.send_signal(SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 75, output
    assert "run again" in output


def test_drift_is_shown_and_refused(cli: Cli) -> None:
    run = cli.folder / "run"
    cli.train_until(run, '"last_step":30', SIGTERM)
    output = cli.train(run, "training.micro_batch_size=8", expect=2)
    assert "training.micro_batch_size: was 4, now 8" in output
    (next((cli.folder / "text").iterdir())).write_text("changed " * 2000)
    output = cli.train(run, expect=2)
    assert "data.fingerprint" in output
    output = cli.run("train", cli.config, "training.steps=60", "--accept-drift", "--run", run)
    assert "finished" in output


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete"])
def test_a_damaged_checkpoint_is_passed_over_and_said(cli: Cli, whole: tuple[Path, str], damage: str) -> None:
    run = cli.folder / "run"
    cli.train_until(run, '"last_step":90', SIGKILL)
    newest = sorted((run / "checkpoints").glob("step-*"))[-1]
    victim = newest / "tensors.safetensors"
    data = bytearray(victim.read_bytes())
    if damage == "truncate":
        victim.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[len(data) // 2] ^= 4
        victim.write_bytes(data)
    else:
        victim.unlink()
    output = cli.run("verify", run, expect=5)
    assert "damaged" in output
    assert newest.name in output
    output = cli.train(run)
    assert newest.name in output
    assert cli.same_bits(run, whole[0]) == "same"


def test_a_damaged_best_is_not_replaced_in_silence(cli: Cli, whole: tuple[Path, str]) -> None:
    run = cli.folder / "run"
    shutil.copytree(whole[0], run)
    told = cli.run("evaluate", run, "--json")
    best = json.loads(told[told.index("{") :])["step"]
    (run / "checkpoints" / f"step-{best:08d}" / "tensors.safetensors").write_bytes(b"cut")
    output = cli.run("generate", run, "--prompt", "def", "--max-tokens", "2")
    assert f"step-{best:08d} is damaged and was passed over: step-" in output


def test_a_run_without_any_checkpoint_begins_anew(cli: Cli, whole: tuple[Path, str]) -> None:
    run = cli.folder / "run"
    cli.train_until(run, '"last_step":2', SIGKILL)
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    cli.train(run)
    assert cli.same_bits(run, whole[0]) == "same"


def test_when_no_checkpoint_is_whole_nothing_is_begun_anew(cli: Cli) -> None:
    run = cli.folder / "run"
    cli.train_until(run, '"last_step":60', SIGKILL)
    for tensors in (run / "checkpoints").glob("*/tensors.safetensors"):
        tensors.write_bytes(tensors.read_bytes()[:100])
    output = cli.train(run, expect=5)
    assert "no checkpoint" in output
    assert "move" in output


def test_a_full_disk_leaves_the_older_checkpoint_and_no_leftovers(cli: Cli) -> None:
    """A limit on the size of files stands for the disk: checkpoints no longer fit, exit 5."""
    run = cli.folder / "run"
    cli.train_until(run, '"last_step":30', SIGTERM)
    before = sorted((run / "checkpoints").iterdir())
    process = cli.start("train", cli.config, "--run", run, file_limit_bytes=100_000)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 5, output
    assert "could not be written" in output
    assert sorted((run / "checkpoints").iterdir()) == before
    assert "intact" in cli.run("verify", run)


def test_judging_on_other_text_is_refused(cli: Cli, whole: tuple[Path, str]) -> None:
    text = whole[0].parent / "text/queue.py"
    original = text.read_text()
    try:
        text.write_text(original.replace("e", "x"))
        output = cli.run("evaluate", whole[0], expect=2)
    finally:
        text.write_text(original)
    assert "data.fingerprint" in output


def test_a_killed_run_says_how_it_ended_and_what_is_redone(cli: Cli) -> None:
    run = cli.folder / "run"
    cli.train_until(run, '"last_step":90', SIGKILL)
    output = cli.run("show", run)
    assert re.search(r"ended +killed: no end was written; step \d+ was seen last, at \d{4}-\d\d-\d\d ", output)
    summary = json.loads(cli.run("show", run, "--json"))
    again = summary["step"] - summary["resumes_from"]
    assert f"goes on from step {summary['resumes_from']}" in output
    assert (f"; {again} steps at least will be done again" in output) == (again > 1)
    assert f"resumed   goes on from step {summary['resumes_from']}, attempt 2" in cli.run("resume", run)


def test_a_relative_path_means_the_same_text_from_everywhere(cli: Cli) -> None:
    run, text = cli.folder / "run", cli.folder / "text"
    cli.config.write_text(cli.config.read_text().replace(str(text), "text"))
    assert cli.train_until(run, '"last_step":30', SIGTERM, "training.steps=100")[0] == 75
    assert cli.train_until(run, '"attempt":2', SIGTERM, "training.steps=100")[0] in (75, 0)
    cli.folder = Path("/")  # where commands are typed
    assert "finished" in cli.run("resume", run)
    assert f'path: "{text}"' in (run / "config.yaml").read_text()


def test_a_start_that_failed_leaves_nothing_and_can_be_begun_again(cli: Cli) -> None:
    runs = cli.folder / "runs"
    too_long = "data.sequence_length=100000"
    output = cli.train(runs / "mine", too_long, expect=3)
    assert "too little text" in output
    assert not runs.exists()
    runs.mkdir()
    (runs / "mine").mkdir()
    cli.train(runs / "mine", too_long, expect=3)
    assert list((runs / "mine").iterdir()) == []
    assert cli.train_until(runs / "mine", '"last_step":20', SIGTERM)[0] == 75
    before = sorted(path.name for path in (runs / "mine").iterdir())
    cli.train(runs / "mine", too_long, "--accept-drift", expect=3)
    assert sorted(path.name for path in (runs / "mine").iterdir()) == before


@pytest.mark.parametrize(
    "points",
    [
        pytest.param(["announced"], marks=pytest.mark.slow),
        ["decided"],
        pytest.param(["restored"], marks=pytest.mark.slow),
        pytest.param(["saved"], marks=pytest.mark.slow),
        ["decided", "resumed"],
    ],
)
def test_a_kill_in_the_middle_of_a_rollback_is_finished_by_the_next_attempt(
    cli: Cli, rolled_back: Path, points: list[str]
) -> None:
    """Between the decision in the record and the first save: decided once, the same data left out, the same bits."""
    run = cli.folder / "run"
    for point in points:
        assert cli.script("rolls_back.py", run, point).returncode == -SIGKILL
        assert (run / "rollback.json").exists()
    done = cli.script("rolls_back.py", run)
    assert done.returncode == 0, done.stderr
    assert not (run / "rollback.json").exists()
    assert cli.same_bits(run, rolled_back) == "same"
    # A kill before the decision was in the record: nothing had happened, so it is decided by the next attempt.
    assert len([line for line in events(run, "DecisionTaken") if '"kind":"Rollback"' in line]) == 1
    assert losses(run) == losses(rolled_back)
    states = [
        json.loads((sorted((path / "checkpoints").glob("step-*"))[-1] / "checkpoint.json").read_text())["state"]
        for path in (run, rolled_back)
    ]
    for state in states:  # what goes by the clock
        state["controllers"]["doctor"]["told"].pop("input-bound", None)
        assert state["controllers"]["doctor"].pop("run_seconds") > state["controllers"]["doctor"].pop("spent_seconds")
    assert states[0]["controllers"] == states[1]["controllers"]
    assert states[0]["progress"]["plan"] == states[1]["progress"]["plan"] == {"excluded": [[880, 944]]}
    assert states[0]["progress"]["factors"] == {"learning_rate": {"lowers": 0.5}}
