"""The encoder: a trunk in which every position sees its whole document, and a head for tokens or for whole texts.

Shape suffixes: B texts · T positions · D hidden size; all of them in `signals/batch.py`.
"""

from __future__ import annotations

from typing import Literal, Unpack, final

from torch import Tensor, nn

from trimtab.model.dropout import Dropout
from trimtab.model.embedding_head import EmbeddingHead, mean_of_texts
from trimtab.model.trunk import Shape, Trunk
from trimtab.signals import ModelOutput, Outputs


@final
class Encoder(Trunk):
    """Reads texts from both sides. BERT is a setting of it.

    Positions see those of the same document, so that padding, whose document is -1, is seen by padding alone. Of a
    whole text one vector is made: the mean of its positions, or the first.
    Of vectors the head is a matrix, or nothing, and their length (`EmbeddingHead`).
    A head that says tokens has no bias, and is the embedding with `tied_embeddings`; any other has a bias.
    Source: Devlin et al. 2019, arXiv 1810.04805; the mean as in Reimers and Gurevych 2019, arXiv 1908.10084.
    """

    def __init__(
        self,
        *,
        outputs: Outputs,
        pooling: Literal["mean", "first"] = "mean",
        head_dropout: float = 0.0,
        tied_embeddings: bool = True,
        **shape: Unpack[Shape],
    ) -> None:
        super().__init__(**shape)
        self.pooled, self.pooling = outputs.pooled, pooling
        self.head_dropout = Dropout(head_dropout)
        self.head: nn.Module
        if outputs.vectors is not None:
            self.head = EmbeddingHead(self.hidden_size, outputs.vectors)
            return
        self.head = nn.Linear(self.hidden_size, outputs.size, bias=not outputs.of_tokens)
        if tied_embeddings and outputs.of_tokens:
            self.head.weight = self.embedding.weight

    def forward(
        self, tokens_BT: Tensor, positions_BT: Tensor | None = None, document_ids_BT: Tensor | None = None
    ) -> ModelOutput:
        """Features [B, T, D], or [B, D] of whole texts, and the head for them.

        Without `document_ids_BT` a row is one document without padding; documents packed in a row are one text to
        a pooled head.

        Raises:
            ConfigError: more tokens than positions.
        """
        features, signals = self.features(tokens_BT, positions_BT, document_ids_BT, causal=False)
        if self.pooled:
            features = self._pool(features, document_ids_BT)
        features = self.head_dropout(features)
        if isinstance(self.head, EmbeddingHead):
            return ModelOutput(features, self.head, signals, self.head.scale)
        return ModelOutput(features, self.head, signals)

    def _pool(self, features_BTD: Tensor, document_ids_BT: Tensor | None) -> Tensor:
        if self.pooling == "first":
            return features_BTD[:, 0]
        return mean_of_texts(features_BTD, document_ids_BT)
