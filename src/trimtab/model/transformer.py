"""The decoder-only transformer: a trunk in which no position sees what follows it, and a head.

Shape suffixes: B sequences · T positions · D hidden size · V vocabulary; all of them in `signals/batch.py`.
"""

from __future__ import annotations

from typing import Literal, Unpack, final

import torch
from torch import Tensor, nn

from trimtab.model.dropout import Dropout
from trimtab.model.embedding_head import mean_of_texts
from trimtab.model.trunk import Shape, Trunk
from trimtab.signals import ModelOutput, Outputs


@final
class Decoder(Trunk):
    """Predicts each next token from the tokens before it. GPT-2 and Llama are settings of it.

    A head that says tokens has no bias; with `tied_embeddings` its weight is the embedding's own parameter. One for
    whole texts has a bias, and reads what stands at their last token, which alone has seen all of them, or the mean of
    their positions.
    Source of the last token: Radford et al. 2018 (GPT), section 3.2.
    """

    def __init__(
        self,
        *,
        outputs: Outputs | None = None,
        pooling: Literal["last", "mean"] = "last",
        head_dropout: float = 0.0,
        tied_embeddings: bool = True,
        document_mask: bool = False,
        **shape: Unpack[Shape],
    ) -> None:
        """`outputs`: the vocabulary at every position if not given; `pooling` is for those of whole texts."""
        super().__init__(**shape)
        outputs = outputs or Outputs(self.vocabulary_size, of_tokens=True)
        self.document_mask, self.pooled, self.pooling = document_mask, outputs.pooled, pooling
        self.head_dropout = Dropout(head_dropout)
        self.head = nn.Linear(self.hidden_size, outputs.size, bias=not outputs.of_tokens)
        if tied_embeddings and outputs.of_tokens:
            self.head.weight = self.embedding.weight

    def forward(
        self, tokens_BT: Tensor, positions_BT: Tensor | None = None, document_ids_BT: Tensor | None = None
    ) -> ModelOutput:
        """Features of every position, [B, T, D], or of whole texts, [B, D], and the head for them.

        `positions_BT` counts only with `document_mask`, and `document_ids_BT` besides where texts are pooled, whose
        padding it tells; without them a sequence is one document.

        Raises:
            ConfigError: more tokens than positions.
        """
        positions, documents = (positions_BT, document_ids_BT) if self.document_mask else (None, None)
        features_BTD, signals = self.features(tokens_BT, positions, documents, causal=True)
        features = self._pool(features_BTD, document_ids_BT) if self.pooled else features_BTD
        return ModelOutput(self.head_dropout(features), self.head, signals)

    def _pool(self, features_BTD: Tensor, document_ids_BT: Tensor | None) -> Tensor:
        """One vector of each text; padding stands at its end."""
        if self.pooling == "mean":
            return mean_of_texts(features_BTD, document_ids_BT)
        if document_ids_BT is None:
            return features_BTD[:, -1]
        last_B = ((document_ids_BT >= 0).sum(1) - 1).clamp_min(0)
        return features_BTD[torch.arange(len(last_B), device=last_B.device), last_B]
