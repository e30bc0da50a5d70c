"""MLP and CNN on a GPU, whose steps are run as they are: as on the CPU, learning, resumed to the same bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtab.config import load_config
from trimtab.events import Event, StepsEnded
from trimtab.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
MODELS = {
    "mlp": "{name: mlp, hidden_size: 32, layer_size: 64, dropout: {hidden: 0.1}}",
    "cnn": "{name: cnn, hidden_size: 32, num_filters: 32, dropout: {head: 0.1}}",
}


class Leaves:
    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded) and event.last_step >= 25:
            raise KeyboardInterrupt


def trainer_of(folder: Path, name: str, *settings: str, leaves: bool = False) -> Trainer:
    rows = folder.parent / "rows.jsonl"
    if not rows.exists():
        words = {"tree": "leaf root bark twig", "sea": "wave salt foam tide", "sky": "star moon cloud wind"}
        texts = [
            {"text": " ".join(([*said.split()] * 3)[one % 5 : one % 5 + 2 + one % 6]), "label": label}
            for label, said in words.items()
            for one in range(80)
        ]
        rows.write_text("".join(json.dumps(one) + "\n" for one in texts))
    lines = [
        f"data={{source: {{name: jsonl, path: {rows}}}, tokenizer: {{name: bytes}}, sequence_length: 32}}",
        "task={name: classification, label: label}",
        f"model={MODELS[name]}",
        "optimizer.learning_rate=5e-3",
        "training={steps: 60, micro_batch_size: 16, accumulation: 2, deterministic: true}",
        "evaluation={every: 20, gap_tokens: 0}",
        "checkpoint.every=20",
        "stopping={name: none}",
        "logging.every=5",
    ]
    config = load_config(None, lines + list(settings))
    return Trainer(config, run=folder, monitors=[Leaves()] if leaves else [])


def weights(trainer: Trainer) -> dict[str, Any]:
    return trainer.trained()[0].state_dict()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", MODELS)
def test_a_run_learns_and_is_resumed_to_the_same_bits(tmp_path: Path, name: str, precision: str) -> None:
    settings = f"training.precision.name={precision}"
    whole = trainer_of(tmp_path / "whole", name, settings)
    metrics = whole.fit().metrics
    assert metrics["validation/accuracy"] > 0.9
    assert json.loads((tmp_path / "whole" / "plan.json").read_text())["capture"]["reason"].startswith("not captured")
    with pytest.raises(KeyboardInterrupt):
        trainer_of(tmp_path / "left", name, settings, leaves=True).fit()
    resumed = trainer_of(tmp_path / "left", name, settings)
    resumed.fit()
    expected = weights(whole)
    assert any("running_mean" in one for one in expected)
    assert all(torch.equal(value, expected[one]) for one, value in weights(resumed).items())


@pytest.mark.parametrize("name", MODELS)
def test_it_computes_what_the_processor_does(tmp_path: Path, name: str) -> None:
    dropout = f"model.dropout.{'hidden' if name == 'mlp' else 'head'}=0"
    # Not Adam: of a gradient that is all but 0 it takes the sign, which rounding decides.
    settings = ("training.steps=4", "evaluation.every=4", dropout, "optimizer={name: sgd, learning_rate: 0.1}")
    here = trainer_of(tmp_path / "cpu", name, "training.device=cpu", *settings)
    there = trainer_of(tmp_path / "cuda", name, *settings)
    found, expected = there.fit().metrics, here.fit().metrics
    assert found["validation/loss"] == pytest.approx(expected["validation/loss"], rel=1e-3)
    for one, value in weights(here).items():
        torch.testing.assert_close(weights(there)[one].cpu(), value, rtol=1e-2, atol=1e-3)
