"""A remedy proven on real runs: too high a rate, lowered; interrupted, it goes on to the same losses."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from trimtab.cli import app
from trimtab.config import Config, load_config
from trimtab.doctor.fix import Change, Fix
from trimtab.doctor.tried import tried_beside
from trimtab.errors import UsageError
from trimtab.experiments import prove
from trimtab.experiments.proof import Proof
from trimtab.runs import RunDirectory
from trimtab.trainer import Trainer

RATE = "optimizer.learning_rate"


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    for name in ("heapq.py", "bisect.py", "textwrap.py", "queue.py"):
        shutil.copy(Path(os.__file__).parent / name, folder / name)
    return folder


def config(text: Path, **more: Any) -> Config:
    settings = {
        "data.source": {"name": "text", "path": str(text)},
        "data.tokenizer": {"name": "bytes"},
        "data.sequence_length": 32,
        "model": {"name": "decoder", "num_layers": 1, "hidden_size": 16, "num_heads": 2},
        "training.micro_batch_size": 4,
        "training.steps": 48,
        "evaluation.every": 12,
        "evaluation.max_tokens": 512,
        "evaluation.gap_tokens": 0,
        "evaluation.samples.max_tokens": 0,
        "evaluation.yardsticks": False,
        "optimizer.learning_rate": 3.0,
        "gradients.clip": {"name": "none"},
        "schedule": {"name": "constant", "warmup": 0},
        "logging.layers": False,
        "lint.allow": [],
    } | more
    return load_config("gpt-1m", [f"{name}={json.dumps(value)}" for name, value in settings.items()], environment={})


def lowered(text: Path) -> Fix:
    change = Change(RATE, 3.0, 0.003, "learning-rate-too-high", "lower the learning rate", "too large updates")
    return Fix((change,), (), (f"{RATE}=0.003",), config(text, **{RATE: 0.003}))


def losses(proof: Proof | None) -> list[tuple[str, int, float | None]]:
    assert proof is not None
    return [(one.side, one.seed, one.loss) for one in proof.outcomes]


@pytest.mark.parametrize("seeds", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_lower_rate_is_proven_and_an_interrupted_proof_goes_on_to_the_same(
    text: Path, tmp_path: Path, seeds: int
) -> None:
    run = tmp_path / "run"
    whole = prove(run, config(text), lowered(text), seeds=seeds)
    assert whole is not None
    assert (whole.steps, whole.of_steps) == (24, 48)
    assert whole.verdict in ("held", "helped"), whole.text
    assert [(one.side, one.seed, one.step) for one in whole.outcomes] == [
        (side, seed, 24) for seed in range(seeds) for side in ("original", "fixed")
    ]
    assert whole.difference is not None
    assert whole.difference < 0
    assert (whole.interval is not None) == (seeds > 1)
    records = sorted(run.glob("proofs/*/seed-*/record.jsonl"))
    before = [path.stat().st_mtime_ns for path in records]
    again = prove(run, config(text), lowered(text), seeds=seeds)
    assert losses(again) == losses(whole)
    assert [path.stat().st_mtime_ns for path in records] == before, "what was done is not done again"

    told: list[str] = []

    def interrupts(what: str, fraction: float) -> None:
        told.append(what)
        if what == f"2 of {2 * seeds}: fixed, seed 0" and fraction >= 0.5 and told.count("interrupted") == 0:
            told.append("interrupted")
            os.kill(os.getpid(), signal.SIGTERM)

    other = tmp_path / "other"
    assert prove(other, config(text), lowered(text), seeds=seeds, report=interrupts) is None
    assert losses(prove(other, config(text), lowered(text), seeds=seeds)) == losses(whole)


@pytest.mark.slow
def test_the_command_trains_fixes_and_proves(text: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    Trainer(config(text), run=run).fit()
    runner = CliRunner()
    result = runner.invoke(app, ["doctor", str(run), "--prove", "--full", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["findings"][0]["code"] in {one["code"] for one in told["fix"]["changes"]}, told["summary"]
    proof = told["proof"]
    assert proof["verdict"] in ("held", "helped"), proof["text"]
    assert proof["steps"] == proof["of_steps"] == 48
    original = next(one for one in proof["outcomes"] if one["side"] == "original")
    record = RunDirectory.open(run)
    assert (
        RunDirectory.open(Path(original["run"])).read_json(Path(original["run"]) / "facts.json")["identity"][
            "data.fingerprint"
        ]
        == record.read_json(record.facts)["identity"]["data.fingerprint"]
    )
    # The original once more is the run once more.
    ended = [json.loads(line) for line in (run / "record.jsonl").read_text().splitlines()]
    evaluated = [one["metrics"]["validation/loss"] for one in ended if one["event"] == "EvaluationEnded"]
    assert original["loss"] is None or original["loss"] in [pytest.approx(value, rel=1e-6) for value in evaluated]
    assert any(one.where.startswith("proofs/") for one in tried_beside(record))
    shown = runner.invoke(app, ["doctor", str(run), "--prove", "--full"])
    assert shown.exit_code == 0, shown.output
    assert "remedy" in shown.output
    assert "original seed 0" in shown.output


def test_what_cannot_be_proven_is_refused(text: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no change to prove"):
        prove(tmp_path, config(text), Fix((), ()))
    with pytest.raises(UsageError, match="seeds: must be 1 to 21"):
        prove(tmp_path, config(text), lowered(text), seeds=22)
