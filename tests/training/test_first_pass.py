"""Scales before step 1: in the facts of a run, and a note where they are too large."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trimtab.config import load_config
from trimtab.data import prepare_data
from trimtab.model import Decoder, build_model, wrap_model
from trimtab.objective import build_objective, build_task
from trimtab.signals import Outputs, SpecialTokens
from trimtab.trainer import Trainer
from trimtab.training.first_pass import notes_on_scales, scales_at_start


def settings(tmp_path: Path, **model: Any) -> dict[str, Any]:
    text = tmp_path / "text.txt"
    text.write_text("how large is what nobody has learned\n" * 60)
    return {
        "model": {"name": "decoder", "num_layers": 3, "hidden_size": 32, "num_heads": 2, **model},
        "data": {"sequence_length": 16, "source": {"name": "text", "path": str(text)}, "tokenizer": {"name": "bytes"}},
        "training": {"steps": 2, "micro_batch_size": 2, "compile": "off", "device": "cpu", "threads": 1},
        "evaluation": {"every": 2, "gap_tokens": 0, "yardsticks": False},
        "stopping": {"name": "none"},
    }


def test_scales_are_those_of_the_model(tmp_path: Path) -> None:
    config = load_config(
        settings(tmp_path, dropout={"residual": 0.5}, initialization={"standard_deviation": 0.2}), environment={}
    )
    data = prepare_data(config.data, config.task, seed=0)
    model = build_model(config.model, vocabulary_size=data.vocabulary_size, sequence_length=16, seed=0)
    assert isinstance(model, Decoder)
    state = torch.get_rng_state()
    found = scales_at_start(model, build_task(config.task, build_objective(config.objective)), data.training)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert not model.measure_activations

    outputs: list[torch.Tensor] = []
    for block in model.all_blocks:
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output[0]))
    model.eval()
    tokens = torch.tensor(data.training.tokens[:16].astype("int64"))[None]  # type: ignore[union-attr]
    logits = model(tokens)
    assert found["logits_std"] == pytest.approx(logits.head(logits.features).std(correction=0).item(), rel=1e-5)
    first, *_, last = (output.square().mean().sqrt().item() for output in outputs)
    assert found["activation_growth"] == pytest.approx(last / first, rel=1e-5)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({}, []),
        ({"initialization": {"standard_deviation": 1.0}}, ["logits"]),
    ],
)
def test_a_run_says_so_where_they_are_too_large(tmp_path: Path, model: dict[str, Any], expected: list[str]) -> None:
    trainer = Trainer(load_config(settings(tmp_path, **model), environment={}), run=tmp_path / "run")
    trainer.fit()
    facts = json.loads((tmp_path / "run/facts.json").read_text())
    notes = notes_on_scales(facts)
    assert all(any(word in note for note in notes) for word in expected)
    assert bool(notes) == bool(expected)
    started = next(
        json.loads(line) for line in (tmp_path / "run/record.jsonl").read_text().splitlines() if "RunStarted" in line
    )
    assert all(note in json.dumps(started, ensure_ascii=False) for note in notes)


class Bare(nn.Module):
    """Embeds, passes through layers that multiply, and scores."""

    def __init__(self, factor: float, spread: float, layers: int = 3) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(257, 16), nn.Linear(16, 257, bias=False)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(16, 16, bias=False)) for _ in range(layers))
        for layer in self.layers:
            layer[0].weight.data = factor * torch.eye(16)  # type: ignore[index, union-attr]
        self.head.weight.data.normal_(0.0, spread)

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens_BT)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)  # type: ignore[no-any-return]


def test_modules_from_outside_are_looked_at_alike(tmp_path: Path) -> None:
    config = load_config(settings(tmp_path), environment={})
    data = prepare_data(config.data, config.task, seed=0)
    task = build_task(config.task, build_objective(config.objective))

    def scales(module: nn.Module) -> dict[str, Any]:
        model = wrap_model(module, data.vocabulary_size)
        return scales_at_start(model, task, data.training)

    torch.manual_seed(0)
    good = scales(Bare(1.0, 0.02))
    assert good["activation_growth"] == pytest.approx(1.0)
    assert good["trained"] is False
    assert notes_on_scales({"first_pass": good}) == []
    grown = scales(Bare(5.0, 1e-4))
    assert grown["activation_growth"] == pytest.approx(25.0, rel=1e-5)
    assert "activations grow 25 times" in notes_on_scales({"first_pass": grown})[0]
    sure = scales(Bare(1.0, 2.0))
    (note,) = notes_on_scales({"first_pass": sure})
    assert "logits have a deviation" in note
    assert "model.initialization" not in note
    assert "activation_growth" not in scales(Bare(1.0, 0.02, layers=0))

    knows = Bare(5.0, 1.0)  # it says what stands there, which in text that repeats its letters is often what follows
    tokens = torch.tensor(data.training.tokens[:17].astype("int64"))  # type: ignore[union-attr]
    knows.embedding.weight.data.zero_()
    knows.embedding.weight.data[tokens[:-1], torch.arange(16)] = 1.0
    knows.head.weight.data.zero_()
    knows.head.weight.data[tokens[1:], torch.arange(16)] = 1.0
    assert scales(knows)["trained"] is True
    assert notes_on_scales({"first_pass": scales(knows)}) == []


def test_models_of_transformers_are_looked_at_alike_and_those_from_folders_are_not_judged(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = load_config(settings(tmp_path), environment={})
    data = prepare_data(config.data, config.task, seed=0)
    task = build_task(config.task, build_objective(config.objective))
    words = {"vocab_size": 257, "n_layer": 3, "n_embd": 32, "n_head": 2, "n_positions": 16, "initializer_range": 1.0}
    module = transformers.GPT2LMHeadModel(transformers.GPT2Config(**words))
    module.save_pretrained(tmp_path / "folder")

    def scales(module: nn.Module) -> dict[str, Any]:
        outputs, special = Outputs(257, of_tokens=True), SpecialTokens(256, 256, 256)
        model = wrap_model(module, 257, outputs, longest_sequence=16, special=special)
        return scales_at_start(model, task, data.training)

    outputs: list[torch.Tensor] = []
    for block in module.transformer.h:
        block.register_forward_hook(lambda module, given, output: outputs.append(output))
    drawn = scales(module)
    first, *_, last = (one[0].square().mean().sqrt().item() for one in outputs[-3:])
    assert drawn["activation_growth"] == pytest.approx(last / first, rel=1e-5)
    assert drawn["trained"] is False
    assert "logits have a deviation" in notes_on_scales({"first_pass": drawn})[0]
    read = scales(transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "folder"))
    assert read == drawn | {"trained": True}
    assert notes_on_scales({"first_pass": read}) == []


def test_what_is_no_number_is_told_and_what_grows(tmp_path: Path) -> None:
    config = load_config(settings(tmp_path), environment={})
    data = prepare_data(config.data, config.task, seed=0)
    task = build_task(config.task, build_objective(config.objective))
    model = build_model(config.model, vocabulary_size=data.vocabulary_size, sequence_length=16, seed=0)
    assert isinstance(model, Decoder)
    assert notes_on_scales({"first_pass": scales_at_start(model, task, data.training)}) == []
    *_, last = model.all_blocks
    with torch.no_grad():
        last.feed_forward.down.weight.mul_(1e4)
    (note,) = notes_on_scales({"first_pass": scales_at_start(model, task, data.training)})
    assert "activations grow" in note
    with torch.no_grad():
        last.feed_forward.down.weight.fill_(float("nan"))
    scales = scales_at_start(model, task, data.training)
    assert scales == {"logits_std": None, "activation_growth": None}
    assert len(notes_on_scales({"first_pass": scales})) == 2
    assert notes_on_scales({}) == []
