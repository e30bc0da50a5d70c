"""Exports as safetensors: the same answers, read without trimtab too, and what is damaged or refused."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from typer.testing import CliRunner

from trimtab import Trainer, load_config
from trimtab.cli import app
from trimtab.errors import CheckpointError, UsageError
from trimtab.export import export
from trimtab.training.checkpoint import read_judged
from trimtab.training.consolidated import read_consolidated
from trimtab.training.trained import open_trained


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


def trained(run: Path, model: str = "decoder", **more: Any) -> Path:
    settings: dict[str, Any] = {
        "model": {"name": model, "num_layers": 1, "hidden_size": 16, "num_heads": 2},
        "data": {
            "source": {"name": "text", "path": str(Path(json.__file__))},
            "tokenizer": {"name": "bytes"},
            "sequence_length": 32,
        },
        "training": {"steps": 20, "micro_batch_size": 4, "device": "cpu"},
        "evaluation": {"every": 10, "gap_tokens": 0, "yardsticks": False, "max_tokens": 512},
        "optimizer": {"name": "adamw", "learning_rate": 1e-2},
        "checkpoint": {"keep_latest": 5},
        **more,
    }
    Trainer(load_config(settings, environment={}), run=run).fit()
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs") / "run", averaging={"name": "ema", "decay": 0.5})


def logits(model: torch.nn.Module, text: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([text])).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("weights", ["plain", "ema"])
@pytest.mark.parametrize("name", ["folder", "one.safetensors"])
def test_it_loads_back_with_equal_logits(run: Path, tmp_path: Path, weights: str, name: str) -> None:
    out = tmp_path / "new" / name
    arguments = ["export", str(run), "--to", "safetensors", "--out", str(out), "--weights", weights, "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["weights"], told["largest_difference"], told["architecture"]) == (weights, 0.0, "Decoder")
    ours, read = open_trained(run, "best", weights), read_consolidated(out)
    assert (read.step, read.weights, read.config) == (ours.checkpoint.step, weights, ours.config)
    assert read.metrics == ours.checkpoint.metrics
    text = read.tokenizer.encode("import json")
    assert text == ours.tokenizer.encode("import json")
    assert torch.equal(logits(read.model, text), logits(ours.model, text))
    file = out if out.is_file() else out / "model.safetensors"
    plain = load_file(file)  # as any other program reads it
    expected = read_judged(ours.checkpoint.path, weights)
    assert {f"model/{key}" for key in plain} == expected.keys()
    assert all(np.array_equal(plain[key.removeprefix("model/")], value.numpy()) for key, value in expected.items())
    if out.is_dir():
        assert sorted(path.name for path in out.iterdir()) == [
            "config.yaml",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
        assert load_config(out / "config.yaml", environment={}) == ours.config
    assert [path.name for path in out.parent.iterdir()] == [name]


def test_a_checkpoint_can_be_named_by_its_path(run: Path, tmp_path: Path) -> None:
    checkpoint = run / "checkpoints" / "step-00000010"
    assert export(checkpoint, "safetensors", tmp_path / "ten.safetensors", weights="plain").step == 10
    assert read_consolidated(tmp_path / "ten.safetensors").step == 10


def test_a_pooled_encoder_and_its_classes(tmp_path: Path) -> None:
    rows = [
        {"text": f"{word} {number}", "label": label}
        for number in range(40)
        for word, label in (("good", "yes"), ("bad", "no"))
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"source": {"name": "jsonl", "path": str(source)}, "tokenizer": {"name": "bytes"}, "sequence_length": 16}
    run = trained(
        tmp_path / "run",
        "encoder",
        task={"name": "classification"},
        data=data,
        evaluation={"every": 10, "gap_tokens": 0},
    )
    exported = export(run, "safetensors", tmp_path / "out")
    assert exported.largest_logit > 0
    read = read_consolidated(tmp_path / "out")
    assert set(read.targets.classes) == {"yes", "no"}


def test_what_is_no_export_or_damaged_is_refused(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "one.safetensors"
    export(run, "safetensors", out)
    whole = out.read_bytes()
    damaged = bytearray(whole)
    damaged[-5] ^= 1
    out.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"is damaged: .* is not as it was written"):
        read_consolidated(out)
    for length in (0, 7, len(whole) // 2, len(whole) - 1):
        out.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="is no export of trimtab, or is damaged"):
            read_consolidated(out)
    foreign = run / "checkpoints" / "step-00000010" / "tensors.safetensors"
    with pytest.raises(CheckpointError, match="is no export"):
        read_consolidated(foreign)
    with pytest.raises(CheckpointError, match="is no export"):
        read_consolidated(tmp_path / "missing")
    out.write_bytes(whole)
    with safe_open(out, framework="np") as opened:
        about = json.loads(opened.metadata()["trimtab"])
    assert about["schema"] == 1
    assert os.fspath(run) not in json.dumps(about["metrics"])


def test_nothing_is_overwritten_and_targets_are_named(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "there.safetensors"
    out.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        export(run, "safetensors", out)
    assert out.read_text() == "mine"
    with pytest.raises(UsageError, match="--to: there is no such target"):
        export(run, "pickle", tmp_path / "new")
    with pytest.raises(UsageError, match="no such weights"):
        export(run, "safetensors", tmp_path / "new", weights="swa")
    assert [path.name for path in tmp_path.iterdir()] == ["there.safetensors"]
