"""One layer: attention moves information between positions, and from another sequence where one is read; the
feed-forward block works on each position alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, final

import torch
from torch import Tensor, nn

from trimtab.model.attention import Attention, CrossAttention
from trimtab.model.dropout import Dropout, LayerDropout
from trimtab.model.feed_forward import Activation, FeedForward
from trimtab.model.norms import NormName, NormPlacement, build_norm
from trimtab.model.recompute import Recompute, draws

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


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
        reads_memory: bool = False,
        layer_dropout: float = 0.0,
        layer_dropout_unit: Literal["branch", "block"] = "branch",
        layer_dropout_per: Literal["sample", "batch"] = "sample",
    ) -> None:
        super().__init__()
        self.norm_placement = norm_placement
        self.attention_norm = build_norm(norm, hidden_size, norm_epsilon, bias)
        self.attention = Attention(hidden_size, num_heads, num_kv_heads, qk_norm, bias, attention_dropout)
        self.residual_dropout = Dropout(residual_dropout)
        self.memory_norm: nn.Module | None = None
        self.memory_attention: CrossAttention | None = None
        if reads_memory:
            self.memory_norm = build_norm(norm, hidden_size, norm_epsilon, bias)
            self.memory_attention = CrossAttention(hidden_size, num_heads, bias, attention_dropout)
        self.feed_forward_norm = build_norm(norm, hidden_size, norm_epsilon, bias)
        self.feed_forward = FeedForward(hidden_size, feed_forward_size, activation, bias)
        self.feed_forward_dropout = Dropout(feed_forward_dropout)
        self.layer_dropout = LayerDropout(layer_dropout, per=layer_dropout_per)
        self.recompute: Recompute = "none"
        self.draws = draws(self)
        """Whether it draws random numbers in training."""
        self.drops_whole = layer_dropout_unit == "block"
        """Whether the branches of the block are left out together."""

    def forward(
        self,
        x_BTD: Tensor,
        rotation: Tensor | None,
        mask: Tensor | BlockMask | None,
        measure: bool = False,
        causal: bool = True,
        memory_BSD: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The residual stream after this layer, and with `measure` its 2-norm at each position, fp32 [B, T].

        `rotation`, `mask` and `causal` are as `Attention` takes them, the memory as `CrossAttention` does. It is
        measured here, so that a compiled block does it on its way, together with a norm that reads the same rows.
        """
        keep = self.layer_dropout.draw(x_BTD) if self.drops_whole else None
        if self.norm_placement == "pre":
            attended_BTD = self.attention(x_BTD, rotation, mask, causal, self.attention_norm)
            x_BTD = x_BTD + self._part(self.residual_dropout(attended_BTD), keep)
            if self.memory_norm is not None and self.memory_attention is not None and memory_BSD is not None:
                read_BTD = self.memory_attention(self.memory_norm(x_BTD), memory_BSD, memory_mask)
                x_BTD = x_BTD + self._part(self.residual_dropout(read_BTD), keep)
            changed_BTD = self.feed_forward(x_BTD, self.feed_forward_norm)
            x_BTD = x_BTD + self._part(self.feed_forward_dropout(changed_BTD), keep)
        else:
            attended_BTD = self.attention(x_BTD, rotation, mask, causal)
            x_BTD = self.attention_norm(x_BTD + self._part(self.residual_dropout(attended_BTD), keep))
            if self.memory_norm is not None and self.memory_attention is not None and memory_BSD is not None:
                read_BTD = self.memory_attention(x_BTD, memory_BSD, memory_mask)
                x_BTD = self.memory_norm(x_BTD + self._part(self.residual_dropout(read_BTD), keep))
            changed_BTD = self.feed_forward(x_BTD)
            x_BTD = self.feed_forward_norm(x_BTD + self._part(self.feed_forward_dropout(changed_BTD), keep))
        norm_BT = torch.linalg.vector_norm(x_BTD.detach(), dim=-1, dtype=torch.float32) if measure else None
        return x_BTD, norm_BT

    def set_recompute(self, how: Recompute) -> None:
        """What is computed again in backward: see `set_recompute` in `recompute.py`."""
        self.recompute = how
        self.attention.recomputes = self.feed_forward.recomputes = how == "selective"

    def _part(self, branch_BTD: Tensor, keep: Tensor | None) -> Tensor:
        """What a branch adds, where whole layers are dropped; `keep` is the draw for all branches, if there is one."""
        return self.layer_dropout(branch_BTD, keep if self.drops_whole else self.layer_dropout.draw(branch_BTD))  # type: ignore[no-any-return]
