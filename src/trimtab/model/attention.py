"""Causal self-attention with grouped queries.

Shape suffixes: B sequences · T positions · D hidden size · H heads · G heads of keys and values ·
K size of a head.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.model.dropout import Dropout
from trimtab.model.norms import build_norm
from trimtab.model.positions import rotate


@final
class Attention(nn.Module):
    """Each position attends to itself and to those before it.

    H / G query heads share one head of keys and values. With `qk_norm`, queries and keys are RMS-normalized
    over a head, with a learned scale, before they are rotated.
    Source: Ainslie et al. 2023, arXiv 2305.13245 (groups); Henry et al. 2020, arXiv 2010.04245 (normalized
    queries and keys; RMS and learned scales as in Qwen3).
    """

    def __init__(
        self, hidden_size: int, num_heads: int, num_kv_heads: int, qk_norm: bool, bias: bool, dropout: float
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.head_size = hidden_size // num_heads
        self.qkv = nn.Linear(hidden_size, (num_heads + 2 * num_kv_heads) * self.head_size, bias=bias)
        self.query_norm = build_norm("rms_norm", self.head_size, 1e-6, bias=False) if qk_norm else None
        self.key_norm = build_norm("rms_norm", self.head_size, 1e-6, bias=False) if qk_norm else None
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(hidden_size, hidden_size, bias=bias)

    def forward(self, x_BTD: Tensor, rotation: Tensor | None, mask: Tensor | None) -> Tensor:
        """What each position reads, [B, T, D].

        `rotation` is what `RotaryPositions` gives. `mask` is boolean, broadcast to [B, H, T, T], True where a
        query sees a key, causality included; None is plain causality.
        """
        projected_BTNK = self.qkv(x_BTD).unflatten(-1, (-1, self.head_size))
        q_BTHK, k_BTGK, v_BTGK = projected_BTNK.split((self.num_heads, self.num_kv_heads, self.num_kv_heads), dim=2)
        if self.query_norm is not None and self.key_norm is not None:
            # In the weights' precision: under autocast the projection is narrower than they are.
            q_BTHK = self.query_norm(q_BTHK.type_as(self.query_norm.weight))
            k_BTGK = self.key_norm(k_BTGK.type_as(self.key_norm.weight))
        if rotation is not None:
            q_BTHK, k_BTGK = rotate(q_BTHK, rotation), rotate(k_BTGK, rotation)
        q_BHTK, k_BGTK = q_BTHK.type_as(v_BTGK).transpose(1, 2), k_BTGK.type_as(v_BTGK).transpose(1, 2)
        y_BHTK = self._attend(q_BHTK, k_BGTK, v_BTGK.transpose(1, 2), mask)
        output_BTD: Tensor = self.output(y_BHTK.transpose(1, 2).flatten(2))
        return output_BTD

    def _attend(self, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, mask: Tensor | None) -> Tensor:
        if self.dropout.rate == 0.0 or not self.training:
            return F.scaled_dot_product_attention(
                q_BHTK,
                k_BGTK,
                v_BGTK,
                attn_mask=mask,
                is_causal=mask is None,
                enable_gqa=self.num_heads != self.num_kv_heads,
            )
        # The fused kernels take their rate as a Python number; ours is a device scalar.
        k_BHTK = k_BGTK.repeat_interleave(self.num_heads // self.num_kv_heads, dim=1)
        v_BHTK = v_BGTK.repeat_interleave(self.num_heads // self.num_kv_heads, dim=1)
        if mask is None:
            mask = causal_mask(q_BHTK.shape[2], q_BHTK.device)
        scores_BHTT = (q_BHTK @ k_BHTK.transpose(2, 3)).float() / math.sqrt(self.head_size)
        weights_BHTT = scores_BHTT.masked_fill(~mask, -torch.inf).softmax(dim=-1)
        y_BHTK: Tensor = self.dropout(weights_BHTT).type_as(v_BHTK) @ v_BHTK
        return y_BHTK


def causal_mask(num_tokens: int, device: torch.device) -> Tensor:
    """Boolean [T, T]: True where the query (row) is not before the key (column)."""
    return torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=device).tril()
