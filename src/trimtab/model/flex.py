"""Where torch's FlexAttention can compute what documents and a window hide, and turning it on."""

from __future__ import annotations

import importlib.util
from typing import Final, TypedDict

import torch
from torch import Tensor, nn

from trimtab.model.attention import Attention
from trimtab.model.encoder import Encoder
from trimtab.model.encoder_decoder import EncoderDecoder
from trimtab.model.masks import BLOCK
from trimtab.model.transformer import Decoder
from trimtab.model.trunk import Trunk

_NARROWEST: Final = 16
"""Of heads that its kernels take."""


class Hidden(TypedDict):
    """What `seen` and `seen_blocks` are asked."""

    document_ids_BT: Tensor | None
    causal: bool
    window: int | None


def refuses_flex(model: nn.Module, device: torch.device, num_tokens: int) -> str | None:
    """Why FlexAttention is not for sequences of `num_tokens` in `model`, or None."""
    layers = [module for module in model.modules() if isinstance(module, Attention)]
    if not isinstance(model, Decoder | Encoder | EncoderDecoder):
        return "it is for trimtab's own transformers"
    if not _reads(model).hides(_documents(model), num_tokens):
        return "nothing is hidden but what follows, for which other kernels are faster"
    if any(layer.dropout.drops for layer in layers):
        return "it has no dropout, and model.dropout.attention is above 0"
    if device.type != "cuda":
        return "its gradient is for CUDA alone"
    if importlib.util.find_spec("triton") is None:
        return "torch.compile has no compiler here: the package triton is missing"
    if any(layer.head_size < _NARROWEST for layer in layers):
        return f"its kernels take no heads narrower than {_NARROWEST}"
    if num_tokens < BLOCK:
        return f"sequences are shorter than one block of {BLOCK}"
    return None


def set_flex(model: nn.Module, on: bool) -> None:
    """Let `model` attend through FlexAttention in training where something is hidden, or not."""
    for module in model.modules():
        if isinstance(module, Trunk):
            module.flex = on


def hidden_by(model: Decoder | Encoder | EncoderDecoder, document_ids_BT: Tensor) -> Hidden:
    """What `model` hides in (first) texts of these documents."""
    documents = document_ids_BT if _documents(model) else None
    return {"document_ids_BT": documents, "causal": isinstance(model, Decoder), "window": _reads(model).window}


def _documents(model: Decoder | Encoder | EncoderDecoder) -> bool:
    return model.document_mask if isinstance(model, Decoder) else True


def _reads(model: Decoder | Encoder | EncoderDecoder) -> Trunk:
    return model.encoder if isinstance(model, EncoderDecoder) else model
