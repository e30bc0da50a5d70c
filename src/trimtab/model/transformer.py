"""The decoder-only transformer: embedding, blocks, head. `block.py` is what happens in between.

Shape suffixes: B sequences · T positions · D hidden size · V vocabulary; all of them in `signals/batch.py`.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from trimtab.errors import ConfigError
from trimtab.model.attention import causal_mask
from trimtab.model.block import Block
from trimtab.model.dropout import Dropout
from trimtab.model.feed_forward import Activation
from trimtab.model.norms import NormName, NormPlacement, build_norm
from trimtab.model.positions import PositionsName, RotaryPositions, SinusoidalPositions
from trimtab.signals import ModelOutput


@final
class Decoder(nn.Module):
    """Predicts each next token from the tokens before it. GPT-2 and Llama are settings of it.

    The head never has a bias; with `tied_embeddings` its weight is the embedding's own parameter. Weights are
    torch's defaults until `init_weights` is called, which `build_model` does.
    """

    def __init__(
        self,
        *,
        vocabulary_size: int,
        max_positions: int,
        num_layers: int,
        hidden_size: int,
        num_heads: int,
        feed_forward_size: int,
        num_kv_heads: int | None = None,
        activation: Activation = "gelu",
        norm: NormName = "layer_norm",
        norm_placement: NormPlacement = "pre",
        norm_epsilon: float = 1e-5,
        positions: PositionsName = "rotary",
        rotary_base: float = 10_000.0,
        qk_norm: bool = False,
        bias: bool = False,
        tied_embeddings: bool = True,
        document_mask: bool = False,
        embedding_dropout: float = 0.0,
        attention_dropout: float = 0.0,
        residual_dropout: float = 0.0,
        feed_forward_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary_size
        self.max_positions = max_positions
        self.hidden_size = hidden_size
        self.num_heads = num_heads
        self.document_mask = document_mask
        self.measure_activations = False
        """Whether the output's `signals` hold the root mean square of each block's output."""

        self.embedding = nn.Embedding(vocabulary_size, hidden_size)
        self.position_embedding: nn.Embedding | SinusoidalPositions | None = None
        self.rotary: RotaryPositions | None = None
        match positions:
            case "learned":
                self.position_embedding = nn.Embedding(max_positions, hidden_size)
            case "sinusoidal":
                self.position_embedding = SinusoidalPositions(hidden_size, max_positions)
            case "rotary":
                self.rotary = RotaryPositions(hidden_size // num_heads, max_positions, rotary_base)
        self.embedding_dropout = Dropout(embedding_dropout)
        self.blocks = nn.ModuleList(
            Block(
                hidden_size=hidden_size,
                num_heads=num_heads,
                num_kv_heads=num_kv_heads or num_heads,
                feed_forward_size=feed_forward_size,
                activation=activation,
                norm=norm,
                norm_placement=norm_placement,
                norm_epsilon=norm_epsilon,
                qk_norm=qk_norm,
                bias=bias,
                attention_dropout=attention_dropout,
                residual_dropout=residual_dropout,
                feed_forward_dropout=feed_forward_dropout,
            )
            for _ in range(num_layers)
        )
        # A post-norm block ends with its norm, so that another one would only repeat it.
        self.final_norm = (
            build_norm(norm, hidden_size, norm_epsilon, bias) if norm_placement == "pre" else nn.Identity()
        )
        self.head = nn.Linear(hidden_size, vocabulary_size, bias=False)
        if tied_embeddings:
            self.head.weight = self.embedding.weight

    @property
    def signal_names(self) -> tuple[str, ...]:
        """The names in the output's `signals`, when activations are measured."""
        return tuple(f"layer/blocks.{index}/activation_rms" for index in range(len(self.blocks)))

    def forward(
        self, tokens_BT: Tensor, positions_BT: Tensor | None = None, document_ids_BT: Tensor | None = None
    ) -> ModelOutput:
        """Features of every position, and the head for them.

        `positions_BT` and `document_ids_BT` count only with `document_mask`; without them a sequence is one
        document.

        Raises:
            ConfigError: more tokens than positions.
        """
        num_tokens = tokens_BT.shape[1]
        if num_tokens > self.max_positions:
            raise ConfigError(
                f"model.max_positions: a sequence of {num_tokens} tokens is longer than the model's "
                f"{self.max_positions} positions",
                hint=f"set model.max_positions to at least {num_tokens}, or shorten the sequences",
            )
        mask = None
        if self.document_mask and document_ids_BT is not None:
            same_document_BTT = document_ids_BT[:, :, None] == document_ids_BT[:, None, :]
            mask = (same_document_BTT & causal_mask(num_tokens, tokens_BT.device))[:, None]
        if self.document_mask and positions_BT is not None:
            positions = positions_BT
        else:
            positions = torch.arange(num_tokens, device=tokens_BT.device)

        x_BTD: Tensor = self.embedding(tokens_BT)
        if self.position_embedding is not None:
            x_BTD = x_BTD + self.position_embedding(positions).type_as(x_BTD)
        x_BTD = self.embedding_dropout(x_BTD)
        rotation = None if self.rotary is None else self.rotary(positions)
        norms: list[Tensor] = []
        for block in self.blocks:
            x_BTD, norm_BT = block(x_BTD, rotation, mask, self.measure_activations)
            if norm_BT is not None:
                norms.append(norm_BT.flatten())
        signals: dict[str, Tensor] = {}
        if norms:  # all layers in one: a kernel for each would cost more than the values themselves
            scales = torch.linalg.vector_norm(torch.stack(norms), dim=1) / math.sqrt(x_BTD.numel())
            signals = dict(zip(self.signal_names, scales.unbind(), strict=True))
        return ModelOutput(self.final_norm(x_BTD), self.head, signals)
