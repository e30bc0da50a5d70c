"""A multilayer perceptron over the mean of a text's embeddings.

Shape suffixes: B texts · T positions · D width of an embedding · F units of a layer; all of them in `signals/batch.py`.
"""

from __future__ import annotations

from typing import Literal, final

from torch import Tensor, nn

from trimtab.model.dropout import Dropout
from trimtab.model.embedding_head import mean_of_texts
from trimtab.model.network import Normalized, texts_of
from trimtab.signals import ModelOutput, Outputs


@final
class Layer(nn.Module):
    """A matrix, a norm with an activation, dropout: [B, inputs] -> [B, F]."""

    def __init__(self, inputs: int, after: Normalized, size: int, dropout: float) -> None:
        super().__init__()
        self.linear, self.after = nn.Linear(inputs, size, bias=after.norm is None), after
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, is_text_B: Tensor | None) -> Tensor:
        """Rows of padding are no part of the norm's statistics."""
        y_BF: Tensor = self.dropout(self.after(self.linear(x), is_text_B))
        return y_BF


@final
class MultilayerPerceptron(nn.Module):
    """Embeddings, their mean over the text, then layers of a matrix, a norm, an activation and dropout; a head.

    BatchNorm is over the texts of a micro-batch, rows of padding left out; the matrix before it has no bias.
    Source: Iyyer et al. 2015, doi 10.3115/v1/P15-1162 (the deep averaging network; dropout of units, not of words).
    """

    def __init__(
        self,
        *,
        vocabulary_size: int,
        outputs: Outputs,
        hidden_size: int = 64,
        num_layers: int = 2,
        layer_size: int = 128,
        activation: Literal["relu", "gelu"] = "relu",
        momentum: float | None = 0.1,
        epsilon: float = 1e-5,
        embedding_dropout: float = 0.0,
        hidden_dropout: float = 0.0,
    ) -> None:
        """`momentum` and `epsilon` are of BatchNorm; without `momentum` there is none."""
        super().__init__()
        self.vocabulary_size, self.hidden_size = vocabulary_size, hidden_size
        self.embedding, self.embedding_dropout = nn.Embedding(vocabulary_size, hidden_size), Dropout(embedding_dropout)
        self.layers = nn.ModuleList(
            Layer(
                layer_size if index else hidden_size,
                Normalized(layer_size, activation=activation, momentum=momentum, epsilon=epsilon),
                layer_size,
                hidden_dropout,
            )
            for index in range(num_layers)
        )
        self.head = nn.Linear(layer_size, outputs.size)

    def forward(
        self, tokens_BT: Tensor, positions_BT: Tensor | None = None, document_ids_BT: Tensor | None = None
    ) -> ModelOutput:
        """Features [B, F] and the head for them. Without `document_ids_BT` there is no padding; positions are unread.

        Documents packed in a row are one text.
        """
        _, is_text_B = texts_of(document_ids_BT)
        x = mean_of_texts(self.embedding_dropout(self.embedding(tokens_BT)), document_ids_BT)
        for layer in self.layers:
            x = layer(x, is_text_B)
        return ModelOutput(x, self.head)
