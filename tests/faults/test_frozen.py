"""What stands still is noticed: real hangs in system calls, through the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import Cli, events, wait_for

SHORT = ("training.steps=60", "training.watchdog_seconds=1.5", "evaluation.gap_tokens=0", "checkpoint.every=10")


def frozen(cli: Cli, what: str, run: Path) -> subprocess.Popen[str]:
    script = str(Path(__file__).with_name("freezes.py"))
    return subprocess.Popen(
        [sys.executable, script, what, str(cli.config), *SHORT, "--run", str(run)],
        env=cli.environment,
        cwd=cli.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(
    "what, stands, line",
    [
        ("data", "in step", "data/loader.py"),
        ("save", "in saving step", "training/checkpoint/files.py"),
        pytest.param("step", "in step 16", "training/micro_batch.py", marks=pytest.mark.slow),
    ],
)
def test_a_frozen_run_tells_where_and_ends_with_7_and_goes_on(cli: Cli, what: str, stands: str, line: str) -> None:
    run = cli.folder / "run"
    process = frozen(cli, what, run)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 7, output
    assert "no progress for" in output
    assert stands in output
    assert line in output
    assert "trimtab" in output.split("hint:")[1]
    (stacks,) = (run / "artifacts").glob("stacks-*.txt")
    text = stacks.read_text()
    assert text.count("Thread 0x") >= 3
    assert "in hang" in text
    ended = json.loads(events(run, "RunEnded")[-1])
    assert (ended["status"], stands in ended["reason"]) == ("failed", True)
    told = json.loads(events(run, "ArtifactLogged")[-1])
    assert (told["name"], told["path"]) == ("stacks", f"artifacts/{stacks.name}")
    shown = cli.run("show", run)
    assert "no progress" in shown
    if what == "step":
        assert "goes on from step 10" in output
        output = cli.run("resume", run)
        assert "finished" in output


def test_a_record_that_cannot_be_written_does_not_keep_the_process(cli: Cli) -> None:
    """The loop hangs in its own write, and nobody else gets a turn."""
    run = cli.folder / "run"
    process = frozen(cli, "record", run)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 7, output
    assert "runs/files.py" in output
    assert "in hang" in next((run / "artifacts").glob("stacks-*.txt")).read_text()
    assert events(run, "RunEnded") == []


@pytest.mark.slow
def test_a_process_that_was_stopped_is_not_frozen(cli: Cli) -> None:
    run = cli.folder / "run"
    process = cli.start("train", cli.config, *SHORT, "training.steps=200", "--run", run)
    wait_for(run / "record.jsonl", '"last_step":10', process)
    process.send_signal(signal.SIGSTOP)
    time.sleep(4)
    process.send_signal(signal.SIGCONT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert not list((run / "artifacts").glob("stacks-*.txt"))


@pytest.mark.slow
def test_where_nothing_of_python_runs_the_stacks_are_written_all_the_same(cli: Cli) -> None:
    run = cli.folder / "run"
    process = frozen(cli, "python", run)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if (files := list((run / "artifacts").glob("stacks-*.txt"))) and "patched" in files[0].read_text():
                break
            time.sleep(0.1)
        else:
            raise AssertionError("no stacks")
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()
