"""The decoder-only transformer: a trunk in which no position sees what follows it, and a head.

Shape suffixes: B sequences · T positions · D hidden size · V vocabulary; all of them in `signals/batch.py`.
"""

from __future__ import annotations

from typing import Unpack, final

from torch import Tensor, nn

from trimtab.model.attention import causal_mask, document_mask
from trimtab.model.trunk import Shape, Trunk
from trimtab.signals import ModelOutput


@final
class Decoder(Trunk):
    """Predicts each next token from the tokens before it. GPT-2 and Llama are settings of it.

    The head never has a bias; with `tied_embeddings` its weight is the embedding's own parameter.
    """

    def __init__(self, *, tied_embeddings: bool = True, document_mask: bool = False, **shape: Unpack[Shape]) -> None:
        super().__init__(**shape)
        self.document_mask = document_mask
        self.head = nn.Linear(self.hidden_size, self.vocabulary_size, bias=False)
        if tied_embeddings:
            self.head.weight = self.embedding.weight

    def forward(
        self, tokens_BT: Tensor, positions_BT: Tensor | None = None, document_ids_BT: Tensor | None = None
    ) -> ModelOutput:
        """Features of every position, and the head for them.

        `positions_BT` and `document_ids_BT` count only with `document_mask`; without them a sequence is one
        document.

        Raises:
            ConfigError: more tokens than positions.
        """
        mask = None
        if self.document_mask and document_ids_BT is not None:
            mask = document_mask(document_ids_BT) & causal_mask(tokens_BT.shape[1], tokens_BT.device)
        positions = positions_BT if self.document_mask else None
        features_BTD, signals = self.features(tokens_BT, positions, mask, causal=True)
        return ModelOutput(features_BTD, self.head, signals)
