"""Small language models that are no transformers: what trimtab meets as modules from elsewhere.

Shape suffixes: B sequences · T positions · D width · V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@final
class WindowMlp(nn.Module):
    """A feed-forward network over the last tokens (Bengio et al. 2003)."""

    def __init__(self, vocabulary: int, width: int, *, seed: int, window: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.window = window
        self.embedding = nn.Embedding(vocabulary, width // 2)
        self.first = nn.Linear(window * (width // 2), 2 * width)
        self.second = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits [B, T, V]; a position sees itself and the `window - 1` before it."""
        x_BTD = F.pad(self.embedding(tokens_BT), (0, 0, self.window - 1, 0))
        seen = torch.cat([x_BTD[:, shift : shift + tokens_BT.shape[1]] for shift in range(self.window)], dim=-1)
        logits_BTV: Tensor = self.head(self.dropout(F.relu(self.second(F.relu(self.first(seen))))))
        return logits_BTV


@final
class CausalConvolutions(nn.Module):
    """Two convolutions that look back, with a residual connection."""

    def __init__(self, vocabulary: int, width: int, *, seed: int, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(vocabulary, width)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, width, 4) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits [B, T, V]."""
        x_BTD = self.embedding(tokens_BT)
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            seen_BDT = F.pad(norm(x_BTD).transpose(1, 2), (3, 0))
            x_BTD = x_BTD + self.dropout(F.relu(convolution(seen_BDT)).transpose(1, 2))
        logits_BTV: Tensor = self.head(x_BTD)
        return logits_BTV


@final
class SigmoidStack(nn.Module):
    """Many sigmoid layers, or others, one after the other: nothing carries the gradient past them."""

    def __init__(
        self,
        vocabulary: int,
        width: int,
        *,
        seed: int,
        depth: int,
        activation: Callable[[Tensor], Tensor] = torch.sigmoid,
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.activation = activation
        self.embedding = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits [B, T, V]."""
        x_BTD = self.embedding(tokens_BT)
        for layer in self.layers:
            x_BTD = self.activation(layer(x_BTD))
        logits_BTV: Tensor = self.head(x_BTD)
        return logits_BTV


@final
class Smoothed(nn.Module):
    """`model` with its answers put through softmax: probabilities where logits are wanted."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Tensor:
        """Probabilities."""
        probabilities: Tensor = self.model(*inputs).softmax(-1)
        return probabilities
