"""The tree of modules: what is in it, what it costs a model, and how it is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from trimtab.config import DecoderConfig
from trimtab.model import build_model, freeze
from trimtab.runs.files import read_json, write_json
from trimtab.runs.modules import render_modules
from trimtab.training.modules import describe_modules

TOKENS = torch.zeros(1, 9, dtype=torch.int64)


def decoder(**changes: Any) -> nn.Module:
    config = {"num_layers": 3, "hidden_size": 16, "num_heads": 2, "dropout": {"residual": 0.5}, **changes}
    return build_model(DecoderConfig.model_validate(config), vocabulary_size=23, sequence_length=16, seed=3)


def test_every_module_weight_and_shape(tmp_path: Path) -> None:
    model = decoder().train()
    freeze(model, ["blocks.0.*"])
    before = torch.get_rng_state()
    told = describe_modules(model, {"tokens_BT": TOKENS})
    assert torch.equal(before, torch.get_rng_state())
    assert model.training
    assert not any(one._forward_hooks for one in model.modules())
    assert [one["name"] for one in told["modules"]] == [name for name, _ in model.named_modules()]
    assert told["parameters"] == sum(one.numel() for one in model.parameters())
    assert told["trained"] == sum(one.numel() for one in model.parameters() if one.requires_grad) < told["parameters"]
    found = {one["name"]: one for one in told["modules"]}
    assert found["blocks.1.attention.qkv"] == {
        "name": "blocks.1.attention.qkv",
        "class": "Linear",
        "parameters": 768,
        "weights": {"weight": {"shape": [48, 16], "dtype": "float32", "trained": True}},
        "output": [1, 9, 48],
    }
    assert not found["blocks.0.attention.qkv"]["weights"]["weight"]["trained"]
    assert found["blocks"]["output"] is None
    write_json(tmp_path / "modules.json", told)
    assert render_modules(read_json(tmp_path / "modules.json")) == render_modules(told)


def test_alike_neighbours_stand_in_one_line() -> None:
    model = decoder()
    text = render_modules(describe_modules(model, {"tokens_BT": TOKENS}))
    assert "0 … 2 (3): Block" in text
    freeze(model, ["blocks.0.*"])
    text = render_modules(describe_modules(model, {"tokens_BT": TOKENS}))
    assert "  0: Block" in text
    assert "1 … 2 (2): Block" in text
    assert "weight [48, 16] (frozen)" in text
    assert all(len(line) == len(line.rstrip()) for line in text.splitlines())


def test_a_model_that_cannot_be_called_so_is_told_of_without_outputs() -> None:
    told = describe_modules(decoder(), {"tokens_BT": torch.zeros(1, 99, dtype=torch.int64)})
    assert "99 tokens is longer" in told["why_no_outputs"]
    assert told["modules"][1]["weights"]["weight"]["shape"] == [23, 16]
    assert "what modules give is not known: ConfigError" in render_modules(told)


class _Draws(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand(1)


def test_a_module_that_draws_does_not_move_the_generator() -> None:
    before = torch.get_rng_state()
    describe_modules(_Draws(), {"x": torch.zeros(3)})
    assert torch.equal(before, torch.get_rng_state())


def test_a_module_from_outside_is_not_called() -> None:
    told = describe_modules(_Draws(), {"x": torch.zeros(3)}, calls=False)
    assert told["modules"][0]["output"] is None
    assert "is not called before its first step" in render_modules(told)
