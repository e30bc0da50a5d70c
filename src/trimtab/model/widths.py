"""A model that computes as one of another width does, so that the same settings are right for both (µP)."""

from __future__ import annotations

import math

from torch import nn

from trimtab.model.attention import Attention, CrossAttention
from trimtab.model.encoder_decoder import EncoderDecoder
from trimtab.model.trunk import Trunk


def set_width(model: nn.Module, ratio: float, base_head_size: float) -> None:
    """Let `model` be `ratio` times as wide as the one that its settings were tuned on, whose heads had
    `base_head_size`.

    What a head reads is divided by `ratio`. Scores of attention are divided by the size of a head, in place of its
    root, and are those of the base at its own size. Learning rates follow in `optimizer.build_groups`, and weights at
    step 0 in `init_weights`.
    Source: Yang et al. 2022, arXiv 2203.03466, table 8 (weights may be shared) and definition 4.1.
    """
    writes: nn.Module = model.decoder if isinstance(model, EncoderDecoder) else model
    if isinstance(writes, Trunk):
        writes.output_scale = 1.0 / ratio
    for module in model.modules():
        if isinstance(module, Trunk | EncoderDecoder):
            module.width_ratio = ratio
        elif isinstance(module, Attention | CrossAttention):
            module.query_scale = math.sqrt(base_head_size / module.head_size)
