"""The range test on a real model: what it suggests is worth taking, and it leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from trimtab import LanguageModelTrainer, load_config
from trimtab.cli import app
from trimtab.errors import UsageError
from trimtab.experiments import find_learning_rate

SETTINGS: dict[str, Any] = {
    "data.source": {"name": "text", "path": "set below"},
    "data.tokenizer": {"name": "bytes"},
    "data.sequence_length": 32,
    "model": {"name": "decoder", "num_layers": 1, "hidden_size": 32, "num_heads": 2},
    "training.micro_batch_size": 8,
    "evaluation.gap_tokens": 0,
    "evaluation.samples.max_tokens": 0,
}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    for name in ("heapq.py", "bisect.py", "textwrap.py", "queue.py"):
        (folder / name).write_text((Path(os.__file__).parent / name).read_text())
    return folder


def overrides(text: Path, **more: Any) -> list[str]:
    settings = SETTINGS | {"data.source": {"name": "text", "path": str(text)}} | more
    return [f"{name}={json.dumps(value)}" for name, value in settings.items()]


@pytest.mark.slow
def test_the_suggestion_is_near_the_best_of_a_grid(text: Path, tmp_path: Path) -> None:
    suggestion = find_learning_rate("gpt-1m", overrides(text)).suggestion
    assert suggestion is not None
    grid = [float(rate) for rate in np.geomspace(3e-4, 5e-2, 5)]
    ends = {}
    for rate in grid:
        settings = SETTINGS | {
            "optimizer.learning_rate": rate, "schedule": {"name": "cosine", "warmup": 0.1, "floor": 0.1},
            "training.steps": 120, "evaluation.every": 120, "evaluation.max_tokens": 4096, "stopping": {"name": "none"},
            "lint.allow": [],
        }  # fmt: skip
        del settings["data.source"]
        trainer = LanguageModelTrainer(text, settings=settings, run=tmp_path / f"{rate:.0e}", progress=False)
        ends[rate] = trainer.fit().metrics["validation/loss"]
    best = min(ends, key=lambda rate: ends[rate])
    assert best not in (grid[0], grid[-1]), f"the grid must hold the best: {ends}"
    assert best / 3.2 <= suggestion <= best * 3.2, (suggestion, ends)


def test_it_repeats_to_the_bit_and_touches_nothing(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    told: list[tuple[str, float]] = []
    make = lambda: find_learning_rate(  # noqa: E731
        "gpt-1m", overrides(text), highest=0.1, steps=40, report=lambda what, part: told.append((what, part))
    )
    first = make()
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    assert repr(make()) == repr(first)  # of what diverged the smoothed loss is not a number, which equals nothing
    assert list(empty.iterdir()) == [], "no run directory"
    assert told[-1] == ("raising the learning rate", 1.0)
    assert len(first.losses) == len(first.rates) == 40


def test_it_has_the_batch_that_a_growing_one_begins_with(text: Path) -> None:
    settings: dict[str, Any] = {"training.micro_batch_size": 4, "training.steps": 40}
    growing = {"training.accumulation_schedule": {"factors": [2, 4]}}
    found = find_learning_rate("gpt-1m", overrides(text, **settings, **growing), steps=20)
    same = find_learning_rate("gpt-1m", overrides(text, **settings, **{"training.accumulation": 2}), steps=20)
    assert found.losses == same.losses


def test_divergence_ends_it(text: Path) -> None:
    settings = overrides(text, optimizer={"name": "sgd", "momentum": 0.9}, gradients={"clip": {"name": "none"}})
    test = find_learning_rate("gpt-1m", settings, lowest=1e-3, highest=1e4, steps=70)
    assert test.diverged is not None
    assert len(test.losses) < 70
    assert test.diverged == test.rates[-1]
    assert test.suggestion is not None
    assert test.suggestion <= test.diverged / 9.5


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(257, 16)
        self.head = nn.Linear(16, 257)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.embedding(tokens))
        return logits


def test_a_model_of_yours_is_left_as_it_was(text: Path) -> None:
    model = Small()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    test = find_learning_rate(
        load_config("gpt-1m", overrides(text)),
        steps=20,
        model=model,
        make_optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1),
        lowest=1e-2,
        highest=10.0,
    )
    assert len(test.losses) == 20
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_wrong_options_are_told_before_anything_is_prepared() -> None:
    with pytest.raises(UsageError, match="rises"):
        find_learning_rate("gpt-1m", lowest=1.0, highest=0.1)
    with pytest.raises(UsageError, match="1 times its best"):
        find_learning_rate("gpt-1m", divergence=0.5)
    with pytest.raises(UsageError, match="overrides"):
        find_learning_rate(load_config("gpt-1m"), ["seed=1"])


def cli(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trimtab.cli", "find-lr", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_command(text: Path, tmp_path: Path) -> None:
    plot = tmp_path / "rates.png"
    settings = [*overrides(text), "optimizer.learning_rate=9"]
    done = cli("gpt-1m", *settings, "--steps", "60", "--plot", str(plot), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "+----" in done.stdout
    assert "the loss falls fastest at" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith("next: ")
    assert "optimizer.learning_rate=9 " not in f"{last} "
    assert plot.read_bytes().startswith(b"\x89PNG")
    again = CliRunner().invoke(app, ["find-lr", "gpt-1m", *settings, "--steps", "60", "--json"])
    facts = json.loads(again.stdout)
    assert last.endswith(f"optimizer.learning_rate={facts['suggestion']:g}")
    assert len(facts["rates"]) == len(facts["losses"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rates.png", "text"]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--from", "1", "--to", "0.1"], "a range test rises from above 0"),
        (["--steps", "3"], "steps: must be at least"),
        (["--diverges-at", "1"], "more than 1 times"),
        (["--plot", "curve.jpg"], "must end in .png, .svg, .pdf"),
        (["--plot", "nowhere/curve.png"], "there is no such folder"),
    ],
)
def test_the_command_refuses_what_is_wrong(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = cli("gpt-1m", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
