"""Self-attention with grouped queries, and attention to another sequence.

Shape suffixes: B sequences · T positions · S positions of the other sequence · D hidden size · H heads ·
G heads of keys and values · K size of a head.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.model.dropout import Dropout
from trimtab.model.masks import attend_to_blocks, causal_mask
from trimtab.model.norms import build_norm
from trimtab.model.packed_attention import frontend, packed_attention, takes
from trimtab.model.positions import RotaryPositions, rotate
from trimtab.model.recompute import product

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


@final
class Attention(nn.Module):
    """Each position attends to itself and to those before it, or to all.

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
        self.packs = False
        """Whether plain causal attention may go through `packed_attention` (`packs_attention` says where)."""
        self.query_scale = 1.0
        """What queries are multiplied with, beside 1 / sqrt(head size)."""
        self.recomputes = False
        """Whether what a norm gives is computed again in backward instead of kept."""
        self.qkv = nn.Linear(hidden_size, (num_heads + 2 * num_kv_heads) * self.head_size, bias=bias)
        self.query_norm = build_norm("rms_norm", self.head_size, 1e-6, bias=False) if qk_norm else None
        self.key_norm = build_norm("rms_norm", self.head_size, 1e-6, bias=False) if qk_norm else None
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(hidden_size, hidden_size, bias=bias)

    def forward(
        self,
        x_BTD: Tensor,
        rotation: Tensor | None,
        mask: Tensor | BlockMask | None,
        causal: bool = True,
        norm: nn.Module | None = None,
    ) -> Tensor:
        """What each position reads, [B, T, D]; `norm`, if given, comes first.

        `rotation` is what `RotaryPositions` gives. `mask` is boolean, broadcast to [B, H, T, T], True where a
        query sees a key, causality included, or the same in blocks, for attention without dropout; None is plain
        causality, or without `causal` everything.
        """
        read = self.qkv(x_BTD) if norm is None else product(norm, self.qkv, x_BTD, recomputes=self.recomputes)
        projected_BTNK = read.unflatten(-1, (-1, self.head_size))
        if self.packs and rotation is None and mask is None and causal and self._can_pack(projected_BTNK):
            y_BTHK, _ = packed_attention(projected_BTNK)
            packed_BTD: Tensor = self.output(y_BTHK.flatten(2))
            return packed_BTD
        q_BHTK, k_BGTK, v_BGTK = self.heads(projected_BTNK, rotation)
        y_BHTK = self._attend(q_BHTK, k_BGTK, v_BGTK, mask, causal)
        output_BTD: Tensor = self.output(y_BHTK.transpose(1, 2).flatten(2))
        return output_BTD

    def heads(self, projected_BTNK: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, H, T, K], keys and values [B, G, T, K] of what `qkv` gave."""
        sizes = (self.num_heads, self.num_kv_heads, self.num_kv_heads)
        q_BTHK, k_BTGK, v_BTGK = projected_BTNK.split(sizes, dim=2)  # type: ignore[no-untyped-call]
        if self.query_norm is not None and self.key_norm is not None:
            # In the weights' precision: under autocast the projection is narrower than they are.
            q_BTHK = self.query_norm(q_BTHK.type_as(self.query_norm.weight))
            k_BTGK = self.key_norm(k_BTGK.type_as(self.key_norm.weight))
        if rotation is not None:
            q_BTHK, k_BTGK = rotate(q_BTHK, rotation), rotate(k_BTGK, rotation)
        if self.query_scale != 1.0:
            q_BTHK = q_BTHK * self.query_scale
        q_BHTK, k_BGTK = q_BTHK.type_as(v_BTGK).transpose(1, 2), k_BTGK.type_as(v_BTGK).transpose(1, 2)
        return q_BHTK, k_BGTK, v_BTGK.transpose(1, 2)

    def _can_pack(self, projected_BTNK: Tensor) -> bool:
        plain = self.query_norm is None and self.num_heads == self.num_kv_heads and self.query_scale == 1.0
        drops = self.training and self.dropout.drops
        return plain and not drops and torch.is_grad_enabled() and takes(projected_BTNK)

    def _attend(
        self, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, mask: Tensor | BlockMask | None, causal: bool
    ) -> Tensor:
        if mask is not None and not isinstance(mask, Tensor):
            return attend_to_blocks(q_BHTK, k_BGTK, v_BGTK, mask)
        if not self.dropout.drops or not self.training:
            return F.scaled_dot_product_attention(
                q_BHTK,
                k_BGTK,
                v_BGTK,
                attn_mask=mask,
                is_causal=mask is None and causal,
                enable_gqa=self.num_heads != self.num_kv_heads,
            )
        k_BHTK = k_BGTK.repeat_interleave(self.num_heads // self.num_kv_heads, dim=1)
        v_BHTK = v_BGTK.repeat_interleave(self.num_heads // self.num_kv_heads, dim=1)
        if mask is None and causal:
            mask = causal_mask(q_BHTK.shape[2], q_BHTK.device)
        return _attend_with_dropout(q_BHTK, k_BHTK, v_BHTK, mask, self.dropout)


def packs_attention(model: nn.Module, device: torch.device) -> str | None:
    """Let plain causal attention in `model` write its gradient in place; gives why not, if not."""
    layers = [module for module in model.modules() if isinstance(module, Attention)]
    if any(layer.query_norm is not None or layer.num_heads != layer.num_kv_heads for layer in layers) or any(
        layer.query_scale != 1.0 for layer in layers
    ):
        return "only plain attention can be, with as many heads of keys as of queries"
    if any(isinstance(module, RotaryPositions) for module in model.modules()):
        return "not with rotary positions, which change queries and keys before"
    if device.type != "cuda":
        return "only on CUDA"
    if frontend() is None:
        return "cuDNN's Python package is not installed (pip install 'trimtab[gpu]')"
    for layer in layers:
        layer.packs = True
    return None


@final
class CrossAttention(nn.Module):
    """Each position attends to the positions of another sequence.

    Positions are not rotated: those of two sequences have no distance. Source: Vaswani et al. 2017, section 3.2.3.
    """

    def __init__(self, hidden_size: int, num_heads: int, bias: bool, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_size = hidden_size // num_heads
        self.query = nn.Linear(hidden_size, hidden_size, bias=bias)
        self.key_value = nn.Linear(hidden_size, 2 * hidden_size, bias=bias)
        self.query_scale = 1.0
        """What queries are multiplied with, beside 1 / sqrt(head size)."""
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(hidden_size, hidden_size, bias=bias)

    def forward(self, x_BTD: Tensor, memory_BSD: Tensor, mask: Tensor | None) -> Tensor:
        """What each position reads, [B, T, D]; `mask`, broadcast to [B, H, T, S], is True where it sees a key."""
        return self.attend(x_BTD, *self.keys_and_values(memory_BSD), mask)

    def keys_and_values(self, memory_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the other sequence, [B, H, S, K] each."""
        both_BSNK = self.key_value(memory_BSD).unflatten(-1, (2 * self.num_heads, self.head_size))
        k_BHSK, v_BHSK = both_BSNK.transpose(1, 2).chunk(2, dim=1)
        return k_BHSK, v_BHSK

    def attend(self, x_BTD: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, mask: Tensor | None) -> Tensor:
        """What each position reads of these, [B, T, D]."""
        q_BHTK = self.query(x_BTD).unflatten(-1, (self.num_heads, self.head_size)).transpose(1, 2)
        if self.query_scale != 1.0:
            q_BHTK = q_BHTK * self.query_scale
        if not self.dropout.drops or not self.training:
            y_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, attn_mask=mask)
        else:
            y_BHTK = _attend_with_dropout(q_BHTK, k_BHSK, v_BHSK, mask, self.dropout)
        output_BTD: Tensor = self.output(y_BHTK.transpose(1, 2).flatten(2))
        return output_BTD


def _attend_with_dropout(
    q_BHTK: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, mask: Tensor | None, dropout: Dropout
) -> Tensor:
    """Written out: the fused kernels take their rate as a Python number; ours is a device scalar."""
    scores_BHTS = (q_BHTK @ k_BHSK.transpose(2, 3)).float() / math.sqrt(q_BHTK.shape[-1])
    if mask is not None:
        # Not -inf: a row of padding alone sees nothing, which would be 0/0. It sees all alike instead.
        scores_BHTS = scores_BHTS.masked_fill(~mask, torch.finfo(scores_BHTS.dtype).min)
    y_BHTK: Tensor = dropout(scores_BHTS.softmax(dim=-1)).type_as(v_BHSK) @ v_BHSK
    return y_BHTK
