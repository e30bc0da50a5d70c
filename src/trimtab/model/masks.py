"""What each position sees of its row: as a boolean mask, or as blocks of one for FlexAttention, which skips what is
not seen instead of computing it.

Shape suffixes: B sequences · T positions · Q blocks of queries · N blocks of keys · H heads · G heads of keys and
values · K size of a head.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

BLOCK: Final = 128
"""Positions in a block of FlexAttention: torch's own size."""


def causal_mask(num_tokens: int, device: torch.device) -> Tensor:
    """Boolean [T, T]: True where the query (row) is not before the key (column)."""
    return torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=device).tril()


def window_mask(num_tokens: int, window: int, device: torch.device) -> Tensor:
    """Boolean [T, T]: True where query and key are less than `window` apart.

    Source: Beltagy et al. 2020, arXiv 2004.05150, section 3.1; with causality Jiang et al. 2023, arXiv 2310.06825.
    """
    places_T = torch.arange(num_tokens, device=device)
    return (places_T[:, None] - places_T[None, :]).abs() < window


def document_mask(document_ids_BT: Tensor) -> Tensor:
    """Boolean [B, 1, T, T]: True where query and key are of one document; padding sees padding, never nothing."""
    return (document_ids_BT[:, :, None] == document_ids_BT[:, None, :])[:, None]


def seen(
    num_tokens: int, document_ids_BT: Tensor | None, *, causal: bool, window: int | None, device: torch.device
) -> Tensor | None:
    """Boolean, broadcast to [B, H, T, T]: True where a query sees a key.

    None where documents and `window` hide nothing: plain causality, or without `causal` everything. The window counts
    places in the row: documents are in one piece, so that within one they differ as in the text itself.
    """
    mask = None if document_ids_BT is None else document_mask(document_ids_BT)
    if window is not None and window < num_tokens:
        near_TT = window_mask(num_tokens, window, device)
        mask = near_TT if mask is None else mask & near_TT
    return mask & causal_mask(num_tokens, device) if causal and mask is not None else mask


def seen_blocks(
    num_tokens: int, document_ids_BT: Tensor | None, *, causal: bool, window: int | None, device: torch.device
) -> BlockMask:
    """The same as blocks [B or 1, 1, Q, N]: those that are seen in part, where each pair is asked, and in full.

    No mask of all pairs is written. Blocks are told from the least and the largest document in each: what is said to
    be seen in part may turn out not to be seen at all, where ids do not rise along the row. Waits for nothing.
    Source: Dong et al. 2024, arXiv 2412.05496 (FlexAttention; blocks seen in part and in full).
    """
    from torch.nn.attention.flex_attention import BlockMask

    places = torch.arange(-(-num_tokens // BLOCK), device=device)
    apart_QN = places[:, None] - places[None, :]
    whole = (places + 1) * BLOCK <= num_tokens
    some, every = apart_QN == apart_QN, whole[:, None] & whole[None, :]
    if causal:
        some, every = some & (apart_QN >= 0), every & (apart_QN > 0)
    if window is not None:
        some = some & ((apart_QN.abs() - 1) * BLOCK + 1 < window)
        every = every & ((apart_QN.abs() + 1) * BLOCK <= window)
    some, every = some[None, None], every[None, None]
    if document_ids_BT is not None:
        inside = torch.arange(len(places) * BLOCK, device=device).clamp_max(num_tokens - 1)
        first_BQ, last_BQ = document_ids_BT[:, inside].view(len(document_ids_BT), -1, BLOCK).aminmax(dim=2)
        meet_BQN = (first_BQ[:, :, None] <= last_BQ[:, None, :]) & (first_BQ[:, None, :] <= last_BQ[:, :, None])
        one_BQN = (first_BQ[:, :, None] == last_BQ[:, None, :]) & (first_BQ[:, None, :] == last_BQ[:, :, None])
        some, every = some & meet_BQN[:, None], every & one_BQN[:, None]

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        told = query >= key if causal else query == query
        if window is not None:
            told = told & ((query - key).abs() < window)
        if document_ids_BT is not None:
            told = told & (document_ids_BT[batch, query] == document_ids_BT[batch, key])
        return told

    return BlockMask.from_kv_blocks(
        *_listed(some & ~every), *_listed(every), BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(num_tokens, num_tokens)
    )


def attend_to_blocks(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, blocks: BlockMask) -> Tensor:
    """What each position reads, [B, H, T, K], by torch's FlexAttention: compiled on CUDA, alone or with what is around.

    On a CPU it has no gradient, and no speed.
    """
    from torch.nn.attention.flex_attention import flex_attention

    attend = flex_attention if torch.compiler.is_compiling() or not q_BHTK.is_cuda else _compiled()
    y_BHTK: Tensor = attend(q_BHTK, k_BGTK, v_BGTK, block_mask=blocks, enable_gqa=q_BHTK.shape[1] != k_BGTK.shape[1])
    return y_BHTK


@cache
def _compiled() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys each block of queries sees, and which: these first, in their order."""
    counts = blocks.sum(dim=-1, dtype=torch.int32)
    return counts, torch.argsort(blocks.int(), dim=-1, descending=True, stable=True).int()
