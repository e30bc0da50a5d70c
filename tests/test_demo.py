"""The demo, small, from end to end, through the commands that a newcomer types."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = [
    "data.source.packages=[mpmath]",
    "data.validation_fraction=0.05",
    "data.tokenizer.vocabulary_size=1024",
    "model.hidden_size=128",
    "training.steps=120",
    "evaluation.every=40",
    "evaluation.samples.max_tokens=20",
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, str]]:
    folder = tmp_path_factory.mktemp("demo")
    environment = {**os.environ, "TRIMTAB_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "trimtab.cli", "demo", *SMALL, "--run", "run"],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout, environment


def _trimtab(demo: tuple[Path, str, dict[str, str]], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "trimtab.cli", *arguments],
        cwd=demo[0], env=demo[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_says_what_happens_in_plain_lines(demo: tuple[Path, str, dict[str, str]]) -> None:
    output = demo[1]
    for word in ("to beat", "bigram", "zlib", "bits/byte", "step   1", "finished", "best", "quality", "next: trimtab"):
        assert word in output, word
    assert not [c for c in output if ord(c) < 32 and c != "\n"]
    before = output[: output.index("step   1")]
    assert len(before.splitlines()) <= 25


def test_it_learned(demo: tuple[Path, str, dict[str, str]]) -> None:
    summary = json.loads(_trimtab(demo, "show", "run", "--json"))
    assert summary["status"] == "finished"
    assert summary["best"]["step"] == 120
    lines = [json.loads(line) for line in (demo[0] / "run/record.jsonl").read_text().splitlines()]
    evaluations = [line["metrics"]["validation/loss"] for line in lines if line["event"] == "EvaluationEnded"]
    assert evaluations == sorted(evaluations, reverse=True)
    assert evaluations[-1] < 5.0 < 6.9  # ln 1024 is what guessing gives


def test_the_run_is_readable_without_trimtab(demo: tuple[Path, str, dict[str, str]]) -> None:
    run = demo[0] / "run"
    for name in (
        "config.yaml",
        "environment.json",
        "plan.json",
        "facts.json",
        "record.jsonl",
        "artifacts/tokenizer.json",
    ):
        assert (run / name).is_file(), name
    facts = json.loads((run / "facts.json").read_text())
    assert facts["parameters"]["total"] > 0
    assert facts["leakage"] == 0
    assert json.loads((run / "plan.json").read_text())["compile"]["chosen"] is False


def test_evaluate_gives_what_training_said(demo: tuple[Path, str, dict[str, str]]) -> None:
    told = json.loads(_trimtab(demo, "evaluate", "run", "--json"))["metrics"]
    lines = [json.loads(line) for line in (demo[0] / "run/record.jsonl").read_text().splitlines()]
    last = [line["metrics"] for line in lines if line["event"] == "EvaluationEnded"][-1]
    assert told == pytest.approx(last, rel=1e-6)


def test_evaluate_says_what_it_does_apart_from_the_metrics(demo: tuple[Path, str, dict[str, str]]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trimtab.cli", "evaluate", "run"],
        cwd=demo[0], env=demo[2], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "judging the validation text ..." in done.stderr.splitlines()
    assert done.stdout.startswith("run, step 120\n")


def test_verify_as_json(demo: tuple[Path, str, dict[str, str]]) -> None:
    told = json.loads(_trimtab(demo, "verify", "run", "--json"))
    assert told["whole"] is True
    assert [one["path"] for one in told["checkpoints"]] == [
        "run/checkpoints/step-00000080",
        "run/checkpoints/step-00000120",
    ]
    assert {"path", "whole", "problems"} == set(told["checkpoints"][0])


def test_generate_repeats(demo: tuple[Path, str, dict[str, str]]) -> None:
    arguments = ("generate", "run", "--prompt", "def", "--max-tokens", "12", "--seed", "3")
    assert _trimtab(demo, *arguments) == _trimtab(demo, *arguments)


def test_generate_without_a_prompt_takes_one_of_the_run(demo: tuple[Path, str, dict[str, str]]) -> None:
    """The demo ends by recommending this command."""
    assert _trimtab(demo, "generate", "run", "--max-tokens", "12").startswith("def")


def test_verify_and_runs(demo: tuple[Path, str, dict[str, str]]) -> None:
    assert "intact" in _trimtab(demo, "verify", "run")
    assert "finished" in _trimtab(demo, "runs", ".")


def test_every_layer_was_measured(demo: tuple[Path, str, dict[str, str]]) -> None:
    """The last weight norms are those of the weights in the last checkpoint."""
    from trimtab.runs import read_statistics
    from trimtab.training.checkpoint import read_tensors

    steps, columns, values = read_statistics(demo[0] / "run/statistics")
    assert steps[-1] == 120
    last = dict(zip(columns, values[-1], strict=True))
    weights = read_tensors(demo[0] / "run/checkpoints/step-00000120", "model/")
    for name, tensor in weights.items():
        plain = name.removeprefix("model/")
        assert last[f"layer/{plain}/weight_norm"] == pytest.approx(float(tensor.norm()), rel=1e-5)
        assert last[f"layer/{plain}/grad_norm"] > 0
    assert all(last[f"layer/blocks.{index}/activation_rms"] > 0 for index in range(4))
