"""A decoder that reads a part at a time: keys and values of what it has read are kept, and not computed again.

Shape suffixes: B sequences · T positions that are new · P positions so far · S positions of the other sequence ·
D hidden size · H heads · G heads of keys and values · K size of a head.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from trimtab.errors import ConfigError
from trimtab.model.attention import Attention
from trimtab.model.block import Block
from trimtab.model.trunk import Trunk


@final
class IncrementalReader:
    """Features of a causal trunk for sequences that grow, as its `features` gives them for the whole, up to rounding.

    For a trunk in eval mode, without gradients. Memory grows by 2 · G · K values a layer for each position.
    Source: Shazeer 2019, arXiv 1911.02150, section 2.4 (incremental generation).
    """

    def __init__(self, trunk: Trunk, memory_BSD: Tensor | None = None) -> None:
        """`memory_BSD`: the features of another sequence, for blocks that read one."""
        self._trunk = trunk
        self._kept: list[tuple[Tensor, Tensor] | None] = [None] * len(trunk.blocks)
        self._memory = [
            None
            if memory_BSD is None or block.memory_attention is None
            else block.memory_attention.keys_and_values(memory_BSD)
            for block in trunk.all_blocks
        ]
        self.length = 0
        """Positions that were read."""

    def read(self, tokens_BT: Tensor) -> Tensor:
        """Features [B, T, D] of tokens that follow what was read. Raises: ConfigError: more tokens than positions."""
        trunk, begin, end = self._trunk, self.length, self.length + tokens_BT.shape[1]
        if end > trunk.max_positions:
            raise ConfigError(
                f"model.max_positions: a sequence of {end} tokens is longer than the model's {trunk.max_positions} "
                "positions"
            )
        places_T = torch.arange(begin, end, device=tokens_BT.device)
        x_BTD: Tensor = trunk.embedding(tokens_BT)
        if trunk.position_embedding is not None:
            x_BTD = x_BTD + trunk.position_embedding(places_T).type_as(x_BTD)
        rotation = None if trunk.rotary is None else trunk.rotary(places_T)
        back_TP = places_T[:, None] - torch.arange(end, device=tokens_BT.device)
        seen_TP = back_TP >= 0 if trunk.window is None else (back_TP >= 0) & (back_TP < trunk.window)
        for index, block in enumerate(trunk.all_blocks):
            x_BTD = self._through(block, index, x_BTD, rotation, seen_TP)
        self.length = end
        return trunk.scaled(trunk.final_norm(x_BTD))

    def choose(self, rows: Tensor) -> None:
        """Go on with sequences `rows` of those that were read, in that order, some perhaps several times."""
        self._kept = [None if one is None else (one[0][rows], one[1][rows]) for one in self._kept]

    def _through(self, block: Block, index: int, x_BTD: Tensor, rotation: Tensor | None, seen_TP: Tensor) -> Tensor:
        is_pre = block.norm_placement == "pre"
        read_BTD = block.attention_norm(x_BTD) if is_pre else x_BTD
        x_BTD = x_BTD + self._attend(block.attention, index, read_BTD, rotation, seen_TP)
        x_BTD = x_BTD if is_pre else block.attention_norm(x_BTD)
        memory = self._memory[index]
        if memory is not None and block.memory_attention is not None and block.memory_norm is not None:
            read_BTD = block.memory_norm(x_BTD) if is_pre else x_BTD
            k_BHSK, v_BHSK = (one.expand(len(x_BTD), -1, -1, -1) for one in memory)
            x_BTD = x_BTD + block.memory_attention.attend(read_BTD, k_BHSK, v_BHSK, None)
            x_BTD = x_BTD if is_pre else block.memory_norm(x_BTD)
        read_BTD = block.feed_forward_norm(x_BTD) if is_pre else x_BTD
        x_BTD = x_BTD + block.feed_forward(read_BTD)
        return x_BTD if is_pre else block.feed_forward_norm(x_BTD)

    def _attend(self, layer: Attention, index: int, x_BTD: Tensor, rotation: Tensor | None, seen_TP: Tensor) -> Tensor:
        projected_BTNK = layer.qkv(x_BTD).unflatten(-1, (-1, layer.head_size))
        q_BHTK, k_BGTK, v_BGTK = layer.heads(projected_BTNK, rotation)
        if (kept := self._kept[index]) is not None:
            k_BGTK, v_BGTK = torch.cat((kept[0], k_BGTK), 2), torch.cat((kept[1], v_BGTK), 2)
        self._kept[index] = (k_BGTK, v_BGTK)
        gqa = layer.num_heads != layer.num_kv_heads
        y_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BGTK, v_BGTK, attn_mask=seen_TP, enable_gqa=gqa)
        output_BTD: Tensor = layer.output(y_BHTK.transpose(1, 2).flatten(2))
        return output_BTD
