from __future__ import annotations

import pytest
import torch

from trimtab.config import CustomModel, DecoderConfig
from trimtab.errors import ConfigError
from trimtab.model import Decoder, ForeignModel, build_model


def test_every_setting_reaches_the_model() -> None:
    config = DecoderConfig.model_validate(
        {
            "num_layers": 3,
            "hidden_size": 32,
            "num_heads": 4,
            "num_kv_heads": 2,
            "activation": "swiglu",
            "norm": {"name": "rms_norm", "placement": "post", "epsilon": 1e-3},
            "positions": {"name": "rotary", "base": 500.0},
            "max_positions": 40,
            "qk_norm": True,
            "bias": True,
            "tied_embeddings": False,
            "document_mask": True,
            "dropout": {"embedding": 0.1, "attention": 0.2, "residual": 0.3, "feed_forward": 0.4},
            "initialization": {"standard_deviation": 0.5, "depth_scaled": False},
        }
    )
    model = build_model(config, vocabulary_size=11, sequence_length=16, seed=0)
    assert isinstance(model, Decoder)
    assert model.training
    assert (model.vocabulary_size, model.max_positions, model.document_mask) == (11, 40, True)
    assert len(model.blocks) == 3
    block = model.blocks[2]
    assert block.norm_placement == "post"
    assert isinstance(block.attention_norm, torch.nn.RMSNorm)
    assert block.attention_norm.eps == 1e-3
    assert (block.attention.num_heads, block.attention.num_kv_heads) == (4, 2)
    assert block.attention.query_norm is not None
    assert block.attention.qkv.bias is not None
    assert block.feed_forward.activation == "swiglu"
    assert block.feed_forward.down.in_features == config.resolved_feed_forward_size == 128
    rates = (
        model.embedding_dropout,
        block.attention.dropout,
        block.residual_dropout,
        block.feed_forward_dropout,
    )
    assert [dropout.rate for dropout in rates] == [0.1, 0.2, 0.3, 0.4]
    assert model.rotary is not None
    assert model.rotary.table[1, 1, 0].item() == pytest.approx(torch.tensor(500.0 ** (-2 / 8)).cos().item())
    assert model.head.weight is not model.embedding.weight
    assert block.attention.output.weight.std().item() == pytest.approx(0.5, rel=0.1)


def test_the_seed_decides_and_torch_s_generator_is_left_alone() -> None:
    config = DecoderConfig(num_layers=1, hidden_size=32)
    state = torch.get_rng_state()
    first = build_model(config, vocabulary_size=11, sequence_length=16, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    second = build_model(config, vocabulary_size=11, sequence_length=16, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert isinstance(first, Decoder)
    assert first.max_positions == 16


def test_custom_modules_are_seeded_and_wrapped() -> None:
    config = CustomModel(target="torch.nn:Embedding", arguments={"num_embeddings": 11, "embedding_dim": 11})
    state = torch.get_rng_state()
    first, second = (build_model(config, vocabulary_size=11, sequence_length=16, seed=3) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(first, ForeignModel)
    assert torch.equal(first.module.weight, second.module.weight)
    assert first(torch.tensor([[1, 2]])).shape == (1, 2, 11)


@pytest.mark.parametrize(
    ("target", "arguments", "message"),
    [
        ("torch.nn:Linear", {"width": 3}, "model.arguments: torch.nn:Linear"),
        ("torch.nn:Lineer", {}, "model.target"),
        ("collections:OrderedDict", {}, "must give an nn.Module. Received: OrderedDict"),
    ],
)
def test_custom_mistakes_name_the_setting(target: str, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(CustomModel(target=target, arguments=arguments), vocabulary_size=5, sequence_length=4, seed=0)
