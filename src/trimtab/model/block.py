"""One layer: attention moves information between positions, the feed-forward block works on each alone."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from trimtab.model.attention import Attention
from trimtab.model.dropout import Dropout
from trimtab.model.feed_forward import Activation, FeedForward
from trimtab.model.norms import NormName, NormPlacement, build_norm


@final
class Block(nn.Module):
    """Pre-norm: x + f(norm(x)), nothing but sums on the residual stream. Post-norm: norm(x + f(x)).

    Source: Vaswani et al. 2017 (post); Xiong et al. 2020, arXiv 2002.04745 (pre).
    """

    def __init__(
        self,
        *,
        hidden_size: int,
        num_heads: int,
        num_kv_heads: int,
        feed_forward_size: int,
        activation: Activation,
        norm: NormName,
        norm_placement: NormPlacement,
        norm_epsilon: float,
        qk_norm: bool,
        bias: bool,
        attention_dropout: float,
        residual_dropout: float,
        feed_forward_dropout: float,
    ) -> None:
        super().__init__()
        self.norm_placement = norm_placement
        self.attention_norm = build_norm(norm, hidden_size, norm_epsilon, bias)
        self.attention = Attention(hidden_size, num_heads, num_kv_heads, qk_norm, bias, attention_dropout)
        self.residual_dropout = Dropout(residual_dropout)
        self.feed_forward_norm = build_norm(norm, hidden_size, norm_epsilon, bias)
        self.feed_forward = FeedForward(hidden_size, feed_forward_size, activation, bias)
        self.feed_forward_dropout = Dropout(feed_forward_dropout)

    def forward(
        self, x_BTD: Tensor, rotation: Tensor | None, mask: Tensor | None, measure: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """The residual stream after this layer, and with `measure` its 2-norm at each position, fp32 [B, T].

        `rotation` and `mask` are as `Attention` takes them. It is measured here, so that a compiled block does it on
        its way, together with a norm that reads the same rows.
        """
        if self.norm_placement == "pre":
            x_BTD = x_BTD + self.residual_dropout(self.attention(self.attention_norm(x_BTD), rotation, mask))
            x_BTD = x_BTD + self.feed_forward_dropout(self.feed_forward(self.feed_forward_norm(x_BTD)))
        else:
            x_BTD = self.attention_norm(x_BTD + self.residual_dropout(self.attention(x_BTD, rotation, mask)))
            x_BTD = self.feed_forward_norm(x_BTD + self.feed_forward_dropout(self.feed_forward(x_BTD)))
        norm_BT = torch.linalg.vector_norm(x_BTD.detach(), dim=-1, dtype=torch.float32) if measure else None
        return x_BTD, norm_BT
