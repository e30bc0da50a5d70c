"""An examination finds what is wrong with a model or with its labels, and finds nothing in sound ones."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from trimtab.cli import app
from trimtab.config import Config, load_config
from trimtab.experiments import examine
from trimtab.experiments.examining import _future, _gradients, _modes
from trimtab.experiments.shuffling import shuffled
from trimtab.model import Dropout
from trimtab.objective import build_objective, build_task
from trimtab.signals import IGNORED, Batch
from trimtab.trainer import Trainer


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def config(**more: Any) -> Config:
    settings = {
        "data.tokenizer": {"name": "bytes"},
        "data.sequence_length": 32,
        "model": {"name": "decoder", "num_layers": 1, "hidden_size": 32, "num_heads": 2, "dropout": {"residual": 0.1}},
        "training.micro_batch_size": 8,
        "training.steps": 20,
        "evaluation.gap_tokens": 0,
        "evaluation.samples.max_tokens": 0,
        "evaluation.yardsticks": False,
        "lint.allow": [],
    } | more
    return load_config("gpt-1m", [f"{name}={json.dumps(value)}" for name, value in settings.items()], environment={})


def a_batch(seed: int = 0, rows: int = 3, length: int = 10) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    tokens_BT = torch.randint(0, 20, (rows, length), generator=draw)
    targets = torch.cat((tokens_BT[:, 1:], torch.full((rows, 1), IGNORED)), dim=1)
    zeros = torch.zeros(rows, length, dtype=torch.int32)
    return Batch(tokens_BT, targets, zeros, zeros, torch.arange(rows), int((targets != IGNORED).sum()))


class Averaging(nn.Module):
    """Logits from the mean of the tokens so far, or of all of them, with what else is wrong."""

    def __init__(self, *, sees_all: bool = False, random: bool = False, cut: bool = False) -> None:
        super().__init__()
        self.embedding, self.head, self.unused = nn.Embedding(20, 8), nn.Linear(8, 20), nn.Linear(2, 2)
        self.sees_all, self.random, self.cut = sees_all, random, cut
        if not cut:
            del self.unused

    def forward(self, tokens_BT: Tensor, **other: Tensor) -> Tensor:
        x_BTD = self.embedding(tokens_BT)
        if self.sees_all:
            x_BTD = x_BTD + x_BTD.mean(dim=1, keepdim=True)
        if self.random:
            x_BTD = x_BTD + 0.1 * torch.randn_like(x_BTD)
        logits: Tensor = self.head(x_BTD.detach() if self.cut else x_BTD)
        return logits


def task() -> Any:
    return build_task(config().task, build_objective(config().objective, None))


def test_a_model_that_sees_what_comes_is_found() -> None:
    assert _future(config(), Averaging(), task(), a_batch()).verdict == "passed"
    assert _future(config(), Averaging(sees_all=True), task(), a_batch()).code == "target-leak"
    batch = a_batch()
    unshifted = Batch(
        batch.tokens_BT, batch.tokens_BT, batch.document_ids_BT, batch.positions_BT, batch.sample_ids_B, 30
    )
    assert _future(config(), Averaging(), task(), unshifted).code == "target-leak"


def test_a_model_that_is_random_in_eval_mode_is_found() -> None:
    assert _modes(config(), Averaging(), task(), a_batch()).verdict == "passed"
    assert _modes(config(), Averaging(random=True), task(), a_batch()).code == "evaluated-in-training-mode"


class Scaled(nn.Module):
    """Logits that are worse the more of them is left, as on a few samples they may be."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.sign = module, nn.Parameter(torch.tensor(-8.0))

    def forward(self, tokens_BT: Tensor, **other: Tensor) -> Tensor:
        right_BTV = nn.functional.one_hot(tokens_BT.roll(-1, 1), 20).float()
        logits: Tensor = self.sign * right_BTV * self.module(torch.ones(*tokens_BT.shape, 1)).clamp(0.0, 1.0)
        return logits


@pytest.mark.parametrize("module", [nn.Dropout(0.5), Dropout(0.5)])
def test_dropout_is_no_fault_of_eval_mode(module: nn.Module) -> None:
    assert _modes(config(), Scaled(module), task(), a_batch()).verdict == "passed"


def test_running_averages_that_lag_are_found() -> None:
    class Lagging(nn.Module):
        """Another scale in eval mode, as of running averages that lag."""

        def forward(self, x_BT1: Tensor) -> Tensor:
            return x_BT1 * (0.01 if self.training else 1.0)

    assert "running averages" in _modes(config(), Scaled(Lagging()), task(), a_batch()).text


def test_parameters_that_no_gradient_reaches_are_found() -> None:
    assert _gradients(config(), Averaging(), task(), a_batch()).verdict == "passed"
    check = _gradients(config(), Averaging(cut=True), task(), a_batch())
    assert check.code == "frozen-parameters"
    assert check.observed["outside"] == ["embedding.weight", "unused.weight", "unused.bias"]
    model = Averaging()
    model.embedding.weight.requires_grad_(False)
    check = _gradients(config(), model, task(), a_batch())
    assert (check.verdict, check.observed["frozen"]) == ("passed", ["embedding.weight"])
    with torch.no_grad():
        model.head.weight.fill_(torch.nan)
    assert _gradients(config(), model, task(), a_batch()).code == "nan-loss"


def test_shuffling_keeps_the_targets_and_what_is_not_counted() -> None:
    batches = [a_batch(seed) for seed in range(3)]
    mixed = shuffled(batches, 1)
    every, other = (torch.stack([one.targets for one in ones]) for ones in (batches, mixed))
    assert torch.equal(other == IGNORED, every == IGNORED)
    assert torch.equal(other.flatten().sort().values, every.flatten().sort().values)
    assert not torch.equal(other, every)
    assert [torch.equal(one.targets, again.targets) for one, again in zip(mixed, shuffled(batches, 1), strict=True)]
    assert mixed[0].tokens_BT is batches[0].tokens_BT
    # Rows of numbers, and of pairs of texts.
    numbers = [replace(one, targets=torch.arange(3.0) + 3 * at) for at, one in enumerate(batches)]
    assert sorted(torch.cat([one.targets for one in shuffled(numbers, 1)]).tolist()) == list(range(9))
    pairs = [replace(numbers[0], targets=torch.arange(3), second_BS=torch.arange(6).reshape(3, 2))]
    second = shuffled(pairs, 2)[0].second_BS
    assert second is not None
    assert sorted(second.tolist()) == [[0, 1], [2, 3], [4, 5]]


def rows(path: Path, *, sound: bool) -> Path:
    """Texts of two kinds; labels that say which, or drawn."""
    draw = random.Random(0)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(400):
            kind = draw.random() < 0.5
            words = draw.choices(["good", "fine", "glad"] if kind else ["bad", "poor", "sad"], k=4)
            label = kind if sound else draw.random() < 0.5
            writer.writerow([" ".join(words), "yes" if label else "no"])
    return path


@pytest.mark.slow
@pytest.mark.parametrize("sound", [True, False])
def test_labels_that_have_nothing_to_do_with_texts_are_found(tmp_path: Path, sound: bool) -> None:
    source = {"name": "csv", "path": str(rows(tmp_path / "rows.csv", sound=sound))}
    asked = load_config(
        "classification",
        [
            f"data.source={json.dumps(source)}", "data.tokenizer={name: bytes}", "data.sequence_length=32",
            "model.num_layers=1", "model.hidden_size=32", "model.num_heads=2", "training.micro_batch_size=16",
            "training.steps=20",
        ],
        environment={},
    )  # fmt: skip
    checks = {check.name: check for check in examine(asked)}
    assert checks["shuffled targets"].verdict == ("passed" if sound else "failed"), checks["shuffled targets"]
    assert checks["one batch"].verdict == "passed", checks["one batch"]
    assert checks["gradients"].verdict == "passed", checks["gradients"]
    assert checks["modes"].verdict == "passed", checks["modes"]
    assert checks["future"].verdict == "left out"


@pytest.mark.slow
def test_the_command_examines_a_sound_run(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    for name in ("heapq.py", "bisect.py", "textwrap.py", "queue.py"):
        shutil.copy(Path(os.__file__).parent / name, folder / name)
    run = tmp_path / "run"
    Trainer(config(**{"data.source": {"name": "text", "path": str(folder)}}), run=run).fit()
    before = torch.get_rng_state()
    result = CliRunner().invoke(app, ["doctor", str(run), "--examine", "--json"])
    assert result.exit_code == 0, result.output
    assert torch.equal(torch.get_rng_state(), before)
    checks = json.loads(result.stdout)["examination"]
    assert [(one["name"], one["verdict"]) for one in checks] == [
        (name, "passed") for name in ("learning rate", "one batch", "shuffled targets", "modes", "gradients", "future")
    ], checks
    result = CliRunner().invoke(app, ["doctor", str(tmp_path / "nothing"), "--examine"])
    assert result.exception is not None
