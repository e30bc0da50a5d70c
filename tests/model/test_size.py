from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from trimtab.config import DecoderConfig
from trimtab.model import Decoder, ForeignModel, build_model, flops_per_token, parameter_counts

SHAPE: dict[str, Any] = {
    "vocabulary_size": 50,
    "max_positions": 16,
    "num_layers": 2,
    "hidden_size": 32,
    "num_heads": 4,
    "feed_forward_size": 64,
}


def test_gpt2_has_124439808_parameters() -> None:
    shape = SHAPE | {
        "vocabulary_size": 50257,
        "max_positions": 1024,
        "num_layers": 12,
        "hidden_size": 768,
        "num_heads": 12,
        "feed_forward_size": 3072,
    }
    with torch.device("meta"):
        counts = parameter_counts(Decoder(**shape, positions="learned", bias=True))
    assert counts["total"] == 124_439_808
    assert counts["groups"]["embedding"] == (50257 + 1024) * 768
    assert counts["non_embedding"] == counts["total"] - (50257 + 1024) * 768
    assert sum(counts["groups"].values()) == counts["total"]


def test_groups_head_and_frozen() -> None:
    model = Decoder(**SHAPE, tied_embeddings=False, norm="rms_norm", qk_norm=True)
    model.embedding.weight.requires_grad_(False)
    counts = parameter_counts(model)
    assert counts["groups"] == {
        "embedding": 50 * 32,
        "norm": 2 * (2 * 32 + 2 * 8) + 32,
        "attention": 2 * 4 * 32 * 32,
        "feed_forward": 2 * 2 * 32 * 64,
        "head": 50 * 32,
    }
    assert counts["frozen"] == 50 * 32
    assert counts["total"] == sum(p.numel() for p in model.parameters())


def test_foreign_parameters_count_once() -> None:
    embedding, head = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
    head.weight = embedding.weight
    counts = parameter_counts(ForeignModel(nn.Sequential(embedding, nn.Linear(4, 4), nn.LayerNorm(4), head)))
    assert counts["groups"] == {"embedding": 40, "other": 20, "norm": 8}


def counted(model: nn.Module, tokens_BT: torch.Tensor, *, backward: bool) -> float:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = model(tokens_BT).logits
        if backward:
            logits.sum().backward()
    return counter.get_total_flops() / tokens_BT.numel()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_kv_heads": 2, "activation": "swiglu", "tied_embeddings": False},
        {"bias": True, "norm": "rms_norm"},
    ],
)
def test_flops_are_those_that_torch_counts(changes: dict[str, Any]) -> None:
    model = Decoder(**SHAPE | changes)
    tokens_BT = torch.zeros(3, 16, dtype=torch.int64)
    whole = flops_per_token(model, 16, causal=False)
    assert whole["forward"] == counted(model, tokens_BT, backward=False)
    assert whole["training"] == counted(model, tokens_BT, backward=True)
    causal = flops_per_token(model, 16)
    assert causal["attention"] == whole["attention"] * 17 / 32
    assert whole["forward"] - causal["forward"] == whole["attention"] * 15 / 32


def test_palm_formula() -> None:
    model = build_model(DecoderConfig(), vocabulary_size=512, sequence_length=128, seed=0)
    matrices = sum(p.numel() for p in model.parameters() if p.dim() == 2)
    assert flops_per_token(model, 128, causal=False)["training"] == 6 * matrices + 12 * 4 * 256 * 128


def test_foreign_models_are_measured_and_left_as_they_were() -> None:
    module = nn.Sequential(nn.Embedding(10, 4), nn.Dropout(0.1), nn.Linear(4, 10))
    module[1].eval()
    assert flops_per_token(ForeignModel(module), 8) == {"forward": 80.0, "training": 240.0}
    assert [child.training for child in module] == [True, False, True]
