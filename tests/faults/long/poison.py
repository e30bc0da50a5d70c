"""A model for which one text is poison: where that character is in a row, its answer is not a number."""

from __future__ import annotations

import torch
from torch import Tensor, nn

POISON = "\x01"


class Poisoned(nn.Module):
    """Embedding, dropout, head: logits of tokens."""

    def __init__(self, vocabulary_size: int, width: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, width)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(width, vocabulary_size)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits, not a number in every row that holds the poison."""
        logits_BTV: Tensor = self.head(self.dropout(self.embedding(tokens_BT)))
        poisoned_B11 = (tokens_BT == ord(POISON)).any(dim=1)[:, None, None]
        return torch.where(poisoned_B11, torch.nan, logits_BTV)
