"""Models that are no transformers of ours, counted for a plan without their weights: as they are when built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_hugging_face import TINY
from torch import Tensor, nn
from typer.testing import CliRunner

from trimtab.cli import app
from trimtab.config import Config, load_config
from trimtab.errors import UsageError
from trimtab.model import HuggingFaceModel, build_model, parameter_counts
from trimtab.model.measured import measure_model
from trimtab.model.recompute import set_recompute
from trimtab.model.size import flops_per_token
from trimtab.planning import find_device, outputs_in, predict, vocabulary_of
from trimtab.signals import Outputs, SpecialTokens

MODELS = [("gpt2", "causal_lm"), ("llama", "causal_lm"), ("bert", "masked_lm"), ("t5", "seq2seq")]
MODELS += [("gpt2", "classification"), ("distilbert", "regression"), ("mlp", "classification")]
MODELS += [("cnn", "classification")]


def config_of(name: str, task: str, **training: Any) -> Config:
    if name in TINY:
        pytest.importorskip("transformers")
    model = {"name": "hugging_face", "config": TINY[name]} if name in TINY else {"name": name}
    return load_config(
        {
            "task": {"name": task},
            "model": model,
            "objective": {"name": "mse" if task == "regression" else "cross_entropy"},
            "data": {
                "source": {"name": "jsonl", "path": "rows.jsonl"},
                "tokenizer": {"name": "bytes"},
                "sequence_length": 32,
            },
            "training": {"micro_batch_size": 2, "device": "cpu", **training},
        },
        environment={},
    )


def built(config: Config) -> nn.Module:
    vocabulary = vocabulary_of(config)
    pooled, of_tokens, size = outputs_in(config, vocabulary)
    outputs = Outputs(size, pooled=pooled, of_tokens=of_tokens, task=config.task.name, classes=("a", "b")[:size])
    return build_model(
        config.model,
        vocabulary_size=vocabulary,
        sequence_length=32,
        seed=0,
        outputs=outputs,
        special=SpecialTokens(0, 0, 0),
    ).train()


def kept_by(model: nn.Module, task: str) -> float:
    """Bytes of one sequence that autograd keeps, weights left out."""
    own = {one.untyped_storage()._cdata for one in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}
    tokens_BT = torch.zeros(2, 32, dtype=torch.int64)
    tokens_BT[:, ::2] = 1  # padding is 0, and a text of padding alone has no last token

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        if isinstance(model, HuggingFaceModel):
            model.module(input_ids=tokens_BT, **({"decoder_input_ids": tokens_BT} if task == "seq2seq" else {}))
        else:
            model(tokens_BT).logits.sum()  # type: ignore[operator]
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / 2


@pytest.mark.parametrize(("name", "task"), MODELS)
def test_what_is_counted_is_what_is_built(name: str, task: str) -> None:
    config = config_of(name, task)
    state = torch.get_rng_state()
    counts = measure_model(config)
    assert torch.equal(torch.get_rng_state(), state)
    model = built(config)
    assert counts.parameters == parameter_counts(model)["groups"]
    shape: Any = counts.shape
    # Where no number is known transformers writes one mask that it leaves out else.
    mask = 2 * 32 * 32 * 4
    assert 0 <= shape.kept_bytes - kept_by(model, task) <= mask
    if task != "seq2seq":
        expected = flops_per_token(model, 32)["forward"] * 32  # type: ignore[arg-type]
        assert counts.forward_flops() == pytest.approx(expected, rel=1e-6)
    if isinstance(model, HuggingFaceModel):
        set_recompute(model, "full")
        assert 0 <= shape.kept_again_bytes - kept_by(model, task) <= mask
        assert shape.kept_again_bytes < shape.kept_bytes
        assert shape.attention_flops > 0
    found = predict(config, find_device("h100"), counts=counts)
    assert found.tokens_per_step == 32 * 2
    assert found.memory["masters"] == 4 * parameter_counts(model)["total"]
    assert found.memory["activations"] >= 2 * shape.kept_bytes * found.ways.value_bytes / 4


def test_a_plan_from_the_command_line(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    path = tmp_path / "config.yaml"
    config = config_of("gpt2", "causal_lm")
    path.write_text(json.dumps(config.model_dump(mode="json", exclude_unset=True)))
    settings = ["--device", "h100", "--json", "training.recompute=full"]
    found = CliRunner().invoke(app, ["plan", str(path), *settings])
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert told["parameters"]["total"] == parameter_counts(built(config))["total"]
    assert told["ways"]["recompute"] == "full"
    assert told["step_seconds"] > 0


def test_a_module_of_ones_own_is_refused() -> None:
    config = load_config({"model": {"name": "custom", "target": "torch.nn:Identity"}}, environment={})
    with pytest.raises(UsageError, match="a module of your own has no shape before it is built"):
        measure_model(config)
