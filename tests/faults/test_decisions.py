"""Kills and signals between the decisions of a run that steers itself: the same decisions at the same steps.

Plateau, spike rollback and stopping are on; a part of the text is spoilt. The attempts are real processes.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import Cli

from trimtab.runs import read_record

CONFIG = """
name: decides
seed: 7
data:
  source: {{name: text, path: {text}}}
  tokenizer: {{name: bytes}}
  sequence_length: 32
  shuffle: false
model: {{name: decoder, num_layers: 1, hidden_size: 32, num_heads: 2}}
optimizer: {{name: adamw, learning_rate: 1e-2}}
schedule: {{name: constant, warmup: 10}}
training: {{steps: 600, micro_batch_size: 8, threads: 1, device: cpu, compile: "off"}}
evaluation: {{every: 20, gap_tokens: 0, max_tokens: 1024, yardsticks: false, samples: {{max_tokens: 0}}}}
checkpoint: {{every: 10, keep_latest: 8}}
control: {{learning_rate: {{name: plateau, patience: 1, threshold: 0.3, threshold_mode: absolute}}}}
recovery: {{spikes: {{name: rollback, memory: 30, patience: 2}}, rollback: {rollback}}}
stopping: {{name: patience, patience: 4, min_delta: 0.15}}
logging: {{every: 2}}
"""
WORDS = (
    "the quick brown fox jumps over a lazy dog",
    "while seven grey wolves sleep under old trees",
    "and rivers rise",
)


def write_config(folder: Path, rollback: str, *spoilt: range) -> Path:
    """A configuration, and its text: words in any order, but for the data of some steps, which is noise."""
    order = random.Random(1)
    text = " ".join(order.choice(WORDS) for _ in range(6_000))[:150_000]
    for steps in spoilt:
        begin, end = 256 * (steps.start - 1), 256 * (steps.stop - 1)
        text = text[:begin] + "".join(chr(order.randrange(33, 127)) for _ in range(end - begin)) + text[end:]
    (folder / "words.txt").write_text(text)
    path = folder / "decides.yaml"
    path.write_text(CONFIG.format(text=folder / "words.txt", rollback=rollback))
    return path


def attempts(cli: Cli, config: Path, seed: int, kills: int, terms: int) -> tuple[Path, Path, dict[str, list[int]]]:
    """A run that nobody disturbed, one that was, and how its attempts ended."""
    script, plain, run = Path(__file__).with_name("attempts.py"), cli.folder / "plain", cli.folder / "run"
    done = subprocess.run(
        [sys.executable, *map(str, (script, config, plain, run, seed, kills, terms))],
        env=cli.environment,
        cwd=cli.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, list[int]] = json.loads(done.stdout)
    return plain, run, told


def decided(run: Path) -> list[tuple[Any, ...]]:
    """What was decided on the branch that survived, and every rollback; each once, as attempts tell some again."""
    kept = [line for line in read_record(run / "record.jsonl") if line["event"] == "DecisionTaken"]
    every = [line for line in read_record(run / "record.jsonl", all_branches=True) if line["event"] == "DecisionTaken"]
    lines = [*kept, *(line for line in every if line["decision"]["kind"] == "Rollback")]
    return sorted(
        {
            (
                line["step"],
                line["controller"],
                line["outcome"],
                line["decision"]["kind"],
                line["decision"]["reason"],
                json.dumps(line.get("details")),
            )
            for line in lines
            if line["controller"] != "doctor"  # which also judges by the clock
        }
    )


def check_the_same(cli: Cli, kills: int, terms: int) -> None:
    config = write_config(cli.folder, "{factor: 0.5, slow_steps: 20}", range(60, 64))
    plain, run, told = attempts(cli, config, 1, kills, terms)
    assert told["plain"] == [0]
    assert set(told["SIGKILL"]) <= {-9, 0}, told
    assert set(told["SIGTERM"]) <= {75, -15, 0}, told  # -15: before its first line
    assert told["last"] == [0], (run.with_suffix(".log")).read_text()[-2000:]
    assert not any(told["left"]), "nothing of a killed process is left"
    assert decided(run) == decided(plain)
    kinds = {(who, kind) for _, who, outcome, kind, *_ in decided(plain) if outcome == "taken"}
    assert {("recovery", "Rollback"), ("recovery", "Adjust"), ("plateau", "Adjust"), ("patience", "Stop")} <= kinds
    assert cli.same_bits(run, plain) == "same"
    if kills > 5:
        assert told["SIGKILL"].count(-9) >= 15, told
        assert told["SIGTERM"].count(75) >= 15, told


def check_the_end(cli: Cli, kills: int, terms: int) -> None:
    config = write_config(cli.folder, "{budget: 2}", range(60, 500))
    plain, run, told = attempts(cli, config, 2, kills, terms)
    assert told["plain"] == told["last"] == [4], (run.with_suffix(".log")).read_text()[-2000:]
    for one in (plain, run):
        rollbacks = [entry for entry in decided(one) if entry[3] == "Rollback"]
        assert len(rollbacks) == 2
        assert all(entry[2] == "taken" for entry in rollbacks)
    assert [entry for entry in decided(run) if entry[3] == "Rollback"] == [
        entry for entry in decided(plain) if entry[3] == "Rollback"
    ]


def test_the_same_decisions_at_the_same_steps(cli: Cli) -> None:
    check_the_same(cli, 2, 1)


@pytest.mark.slow
def test_the_same_decisions_after_twenty_kills_and_twenty_terminations(cli: Cli) -> None:
    check_the_same(cli, 20, 20)


def test_a_region_that_stays_bad_ends_with_exit_code_4_after_its_budget_though_killed_between(cli: Cli) -> None:
    check_the_end(cli, 1, 0)


@pytest.mark.slow
def test_a_region_that_stays_bad_ends_so_after_ten_kills_too(cli: Cli) -> None:
    check_the_end(cli, 10, 5)
