"""Weights at step 0."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from trimtab.model.attention import Attention, CrossAttention
from trimtab.model.feed_forward import FeedForward


@torch.no_grad()
def init_weights(
    model: nn.Module,
    *,
    standard_deviation: float = 0.02,
    matrices: Literal["normal", "xavier_uniform"] = "normal",
    depth_scaled: bool = True,
    num_layers: int | None = None,
    seed: int | None = None,
    width_ratio: float = 1.0,
) -> None:
    """Matrices normal with mean 0, biases 0, scales of norms 1.

    With `matrices` xavier_uniform those of linear layers are uniform within sqrt(6 / (inputs + outputs)) instead, as
    many outputs as the matrix has: those of queries, keys and values are one. Embeddings stay normal, and so does a
    head that is one.

    With `depth_scaled` the projections of each block that write to the residual stream are scaled by
    1/sqrt(2 * num_layers), so that its variance does not grow with depth: what 2 * num_layers writes add is that of
    one. The decoder of an encoder-decoder writes 3 times a layer, and adds half as much again. `num_layers` is counted
    where it is not given; in modules of others nothing is known to write to the residual stream, and nothing is scaled.

    With a `width_ratio`, how much wider a model is than the one that `standard_deviation` was chosen for, normal
    matrices of attention and feed-forward are divided by its square root, so that what they give is as large (uniform
    ones are by their inputs anyway).

    The same seed gives the same weights on every device, whatever the state of torch's own generators, which stay
    untouched. Without a seed torch's generator is drawn from, so that `model.apply(init_weights)` gives equal layers
    different weights; it visits the model last, which is then as after `init_weights(model)`.

    Source: Radford et al. 2019 (GPT-2), section 2.3; Glorot and Bengio 2010, equation 16; Yang et al. 2022, arXiv
    2203.03466, table 8.
    """
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    if num_layers is None:
        kinds = [type(module) for module in model.modules()]
        # Each layer has one of these, but for the decoder of an encoder-decoder: that has the other, too.
        num_layers = max(1, kinds.count(CrossAttention) or kinds.count(Attention))
    residual_scale = 1.0 / math.sqrt(2 * num_layers) if depth_scaled else 1.0
    residual_weights: set[int] = set()
    hidden_weights: set[int] = set()
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for module in model.modules():
        if isinstance(module, Attention | CrossAttention):
            residual_weights.add(id(module.output.weight))
            hidden_weights |= {id(one) for one in module.parameters()}
        elif isinstance(module, FeedForward):
            residual_weights.add(id(module.down.weight))
            hidden_weights |= {id(one) for one in module.parameters()}
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            scale = residual_scale if id(parameter) in residual_weights else 1.0
            drawn = torch.empty(parameter.shape)
            if matrices == "normal" or id(parameter) in embeddings:
                scale /= math.sqrt(width_ratio) if id(parameter) in hidden_weights else 1.0
                drawn.normal_(0.0, standard_deviation * scale, generator=generator)
            else:
                nn.init.xavier_uniform_(drawn, gain=scale, generator=generator)
            parameter.copy_(drawn)
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
