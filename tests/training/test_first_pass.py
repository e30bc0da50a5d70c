"""Scales before step 1: in the facts of a run, and a note where they are too large."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtab.config import load_config
from trimtab.data import prepare_data
from trimtab.model import Decoder, build_model
from trimtab.objective import build_objective, build_task
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
