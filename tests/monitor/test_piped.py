"""A run whose output is read by a program, through the real command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import trimtab

SETTINGS = (
    "data={source: {name: text, path: t.py}, tokenizer: {name: bytes}, sequence_length: 8}",
    "model={name: decoder, num_layers: 1, hidden_size: 8, num_heads: 1}",
    "evaluation={every: 10, max_tokens: 8, gap_tokens: 0, yardsticks: false, samples: {max_tokens: 0}}",
    "logging.layers=false",
    "checkpoint.every=2000",
    "stopping.name=none",
)


def train(folder: Path, steps: int, *more: str) -> bytes:
    """What the command writes to a pipe."""
    (folder / "t.py").write_text((Path(trimtab.__file__).parent / "errors.py").read_text())
    training = f"training={{steps: {steps}, micro_batch_size: 1, device: cpu, threads: 1, compile: off}}"
    command = [sys.executable, "-m", "trimtab.cli", "train", "gpt-1m", *SETTINGS, training, "--run", "run", *more]
    environment = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "COLUMNS")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def judge(output: bytes) -> list[str]:
    """The lines; none of them has a control byte."""
    assert not [byte for byte in output if (byte < 32 and byte != 10) or byte == 127]
    return output.decode().splitlines()


@pytest.mark.slow
def test_ten_thousand_steps_with_a_thousand_evaluations_are_fewer_than_three_hundred_lines(tmp_path: Path) -> None:
    lines = judge(train(tmp_path, 10_000))
    assert len(lines) <= 300
    assert any("before it not shown" in line for line in lines)
    assert any(line.startswith("step 10,000  val ") for line in lines)
    assert any(line.startswith("finished: ") for line in lines)


def test_a_short_run_in_a_pipe_and_as_json(tmp_path: Path) -> None:
    lines = judge(train(tmp_path, 30))
    assert sum(" val " in line for line in lines) == 3
    (tmp_path / "run").rename(tmp_path / "first")
    events = [json.loads(line) for line in judge(train(tmp_path, 30, "--log-format", "json"))]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "RunStarted"
    assert kinds.count("EvaluationEnded") == 3
    assert "RunEnded" in kinds
    assert all(set(event) >= {"event", "time", "step"} for event in events)
    again = train(tmp_path, 30, "--log-format", "json")
    assert again == b""  # it is finished already, which is told apart from the events
