"""Signals at the moments when something else is going on: a save, a report."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from processes import SIGINT, SIGTERM, Cli, events


def slowly(cli: Cli, what: str, seconds: float, run: Path, *overrides: str) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("slowly.py")
    return subprocess.Popen(
        [sys.executable, str(script), what, str(seconds), str(cli.config), *overrides, "--run", str(run)],
        env=cli.environment,
        cwd=cli.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_until(process: subprocess.Popen[str], text: str) -> str:
    told = ""
    assert process.stdout is not None
    for line in process.stdout:
        told += line
        if text in line:
            return told
    raise AssertionError(told)


def test_a_second_signal_ends_at_once_though_a_checkpoint_is_being_written(cli: Cli) -> None:
    run = cli.folder / "run"
    process = slowly(cli, "write", 30, run, "checkpoint.every=20", "checkpoint.background=false")
    read_until(process, "slow write")
    process.send_signal(SIGINT)
    time.sleep(0.3)  # two of the same that come together are one
    begun = time.monotonic()
    process.send_signal(SIGTERM)
    output, _ = process.communicate(timeout=25)
    assert process.returncode == 130, output
    assert time.monotonic() - begun < 10
    assert json.loads(events(run, "RunEnded")[-1])["reason"] == "interrupted twice"
    assert not list((run / "checkpoints").glob("step-*"))
    assert "interrupted twice" in cli.run("show", run)
    assert "finished" in cli.train(run, "checkpoint.every=20", "checkpoint.background=false", "training.steps=240")


def test_a_signal_after_the_last_step_loses_neither_the_verdict_nor_the_exit_code(cli: Cli) -> None:
    run = cli.folder / "run"
    process = slowly(cli, "report", 2, run, "training.steps=20", "evaluation.every=10")
    read_until(process, "slow report")
    process.send_signal(SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "verdict" in output
    assert (run / "diagnosis.json").exists()
    assert json.loads(events(run, "RunEnded")[-1])["status"] == "finished"
