from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

import trimtab
from trimtab.config import DecoderConfig
from trimtab.model import Decoder, EncoderDecoder, build_model, init_weights

SHAPE: dict[str, Any] = {
    "vocabulary_size": 400,
    "max_positions": 64,
    "num_layers": 3,
    "hidden_size": 64,
    "num_heads": 4,
    "feed_forward_size": 256,
    "positions": "learned",
    "bias": True,
    "qk_norm": True,
}


@pytest.mark.parametrize("depth_scaled", [True, False])
def test_statistics(depth_scaled: bool) -> None:
    model = Decoder(**SHAPE)
    init_weights(model, standard_deviation=0.03, depth_scaled=depth_scaled, num_layers=3, seed=5)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif parameter.dim() == 1:
            assert (parameter == 1.0).all(), name
        else:
            residual = depth_scaled and name.endswith(("attention.output.weight", "feed_forward.down.weight"))
            expected = 0.03 / math.sqrt(6) if residual else 0.03
            assert parameter.std().item() == pytest.approx(expected, rel=0.05), name
            assert parameter.mean().item() == pytest.approx(0.0, abs=0.002), name


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("depth_scaled", [True, False])
def test_xavier_uniform_for_linear_layers_and_normal_embeddings(depth_scaled: bool, tied: bool) -> None:
    model = Decoder(**SHAPE, tied_embeddings=tied)
    init_weights(model, matrices="xavier_uniform", depth_scaled=depth_scaled, num_layers=3, seed=5)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert parameter.unique().numel() == 1, name
        elif "embedding" in name:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05), name
            assert parameter.abs().max().item() > 0.06, name  # beyond any uniform one of that deviation
        else:
            outputs, inputs = parameter.shape
            bound = math.sqrt(6.0 / (inputs + outputs))
            if depth_scaled and name.endswith(("attention.output.weight", "feed_forward.down.weight")):
                bound /= math.sqrt(6)
            assert 0.98 * bound < parameter.abs().max().item() <= bound, name
            assert parameter.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05), name
    assert ("head.weight" in dict(model.named_parameters())) == (not tied)


def test_it_is_set_in_the_configuration() -> None:
    config = DecoderConfig.model_validate({"initialization": {"matrices": "xavier_uniform", "depth_scaled": False}})
    model = build_model(config, vocabulary_size=31, sequence_length=8, seed=0)
    weight = dict(model.named_parameters())["blocks.0.attention.output.weight"]
    assert weight.abs().max().item() == pytest.approx(math.sqrt(6 / 512), rel=0.01)


def test_the_seed_alone_decides() -> None:
    first, second, third = Decoder(**SHAPE), Decoder(**SHAPE), Decoder(**SHAPE)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    init_weights(first, num_layers=3, seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    init_weights(second, num_layers=3, seed=7)
    init_weights(third, num_layers=3, seed=8)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.embedding.weight, third.embedding.weight)


def test_layers_are_counted() -> None:
    pairs = {name: value for name, value in SHAPE.items() if name != "qk_norm"}
    for model in (Decoder(**SHAPE), EncoderDecoder(**pairs)):
        init_weights(model, num_layers=3, seed=7)
        given = [parameter.clone() for parameter in model.parameters()]
        trimtab.init_weights(model, seed=7)
        assert all(torch.equal(a, b) for a, b in zip(given, model.parameters(), strict=True))


def test_applied_to_modules_of_others_no_two_layers_are_equal() -> None:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    model = nn.Sequential(nn.Embedding(50, 32), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    model.apply(trimtab.init_weights)
    first, second = (dict(one.named_parameters()) for one in model[1].layers)
    for name, parameter in first.items():
        if parameter.dim() > 1:
            assert not torch.equal(parameter, second[name]), name
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name
        else:
            assert (parameter == (0.0 if name.endswith("bias") else 1.0)).all(), name


def test_without_a_seed_torchs_own_decides() -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(3)
        model = Decoder(**SHAPE)
        trimtab.init_weights(model)
        weights.append(model.embedding.weight.clone())
    assert torch.equal(*weights)
    trimtab.init_weights(model)
    assert not torch.equal(weights[0], model.embedding.weight)
