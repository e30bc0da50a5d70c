"""How large a model is, and how much arithmetic a token costs."""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from trimtab.model.attention import Attention, CrossAttention
from trimtab.model.encoder import Encoder
from trimtab.model.feed_forward import FeedForward
from trimtab.model.kinds import Network, Outside, Transformer
from trimtab.model.mode import evaluating
from trimtab.model.transformer import Decoder
from trimtab.planning import attention_flops, mean_keys, product_flops
from trimtab.signals import ModelOutput


class ParameterCounts(TypedDict):
    """Numbers of parameters; a shared one counts once."""

    total: int
    non_embedding: int
    """Without the embeddings of tokens and positions and the head (Kaplan et al. 2020, section 2.1)."""
    frozen: int
    """Those that take no gradient."""
    groups: dict[str, int]
    """`embedding`, `attention`, `feed_forward`, `norm`, `head`, `other`: those that occur."""


def parameter_counts(model: nn.Module) -> ParameterCounts:
    """How many parameters `model` has, and where. In a foreign model attention and the like are `other`."""
    groups: dict[str, int] = {}
    frozen = 0
    seen: set[int] = set()

    def visit(module: nn.Module, group: str) -> None:
        nonlocal frozen
        group = _group(module, group)
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                groups[group] = groups.get(group, 0) + parameter.numel()
                frozen += 0 if parameter.requires_grad else parameter.numel()
        for name, child in module.named_children():
            visit(child, "head" if isinstance(module, Transformer | Network) and name == "head" else group)

    visit(model, "other")
    total = sum(groups.values())
    return {
        "total": total,
        "non_embedding": total - groups.get("embedding", 0) - groups.get("head", 0),
        "frozen": frozen,
        "groups": groups,
    }


def _group(module: nn.Module, parent: str) -> str:
    """The group of the parameters that `module` itself holds."""
    match module:
        case nn.Embedding():
            return "embedding"
        case nn.LayerNorm() | nn.RMSNorm() | nn.GroupNorm() | _BatchNorm():
            return "norm"
        case Attention() | CrossAttention():
            return "attention"
        case FeedForward():
            return "feed_forward"
    return parent


def flops_per_token(
    model: Decoder | Encoder | Network | Outside, sequence_length: int, *, causal: bool = True
) -> dict[str, float]:
    """Floating-point operations per token: `forward`, of it `attention` (scores and sums), and `training`.

    Matrix products alone, 2 for each multiply-add, the head included, recomputation left out. Training is
    three times forward: the backward pass has two products for each one. A query meets (T + 1) / 2 keys on
    average, or those of its window; with `causal=False` it is charged for all T of them, as is the custom for
    utilization: training is then 6 N + 12 L H K T, with N the weights that are multiplied with. In an encoder a query
    meets all keys, and a head for whole texts works once in `sequence_length` tokens.

    A foreign model, or a small network, is run once, in eval mode on one sequence of zeros. What is counted then holds
    the whole square of its attention, whatever `causal` says; `attention` is not known apart and left out.

    Source: Kaplan et al. 2020, arXiv 2001.08361, section 2.1; Chowdhery et al. 2022, arXiv 2204.02311,
    appendix B.
    """
    if isinstance(model, Network | Outside):
        forward = _measure_forward(model, sequence_length)
        return {"forward": forward, "training": 3.0 * forward}
    num_keys = mean_keys(sequence_length, causal=causal and isinstance(model, Decoder), window=model.window)
    attention = products = 0.0
    for module in model.modules():
        if isinstance(module, Attention):
            attention += attention_flops(module.num_heads, module.head_size, num_keys)
        elif isinstance(module, nn.Linear):
            seldom = isinstance(model, Decoder | Encoder) and model.pooled and module is model.head
            rows = 1.0 / sequence_length if seldom else 1.0
            products += product_flops(module.in_features, module.out_features) * rows
    forward = products + attention
    return {"forward": forward, "attention": attention, "training": 3.0 * forward}


def _measure_forward(model: Network | Outside, sequence_length: int) -> float:
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    tokens_BT = torch.zeros(1, sequence_length, dtype=torch.int64, device=device)
    # The counter knows the products of plain attention, but not every fused kernel.
    with evaluating(model), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        output = model(tokens_BT)
        if isinstance(output, ModelOutput):
            output.head(output.features)
    return float(counter.get_total_flops()) / sequence_length
