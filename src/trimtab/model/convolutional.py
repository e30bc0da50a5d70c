"""A convolutional network over a text's embeddings.

Shape suffixes: B texts · T positions · D width of an embedding · C filters; all of them in `signals/batch.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.model.dropout import Dropout
from trimtab.model.network import Normalized, texts_of
from trimtab.signals import ModelOutput, Outputs


@final
class Filters(nn.Module):
    """A convolution of one width at every position, a norm with an activation: [B, D, T] -> [B, T, C]."""

    def __init__(self, inputs: int, width: int, after: Normalized, num_filters: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(inputs, num_filters, width, bias=after.norm is None)
        self.after, self.around = after, ((width - 1) // 2, width // 2)

    def forward(self, x_BDT: Tensor, real_BT: Tensor | None) -> Tensor:
        """Padding is no part of the norm's statistics."""
        x_BTC: Tensor = self.after(self.convolution(F.pad(x_BDT, self.around)).transpose(1, 2), real_BT)
        return x_BTC


@final
class ConvolutionalNetwork(nn.Module):
    """Filters of several widths side by side over the embeddings, a norm, an activation, the largest value of each
    filter over the text; dropout and a head.

    A filter is applied at every position, with zeros before and after the text, so that padding changes nothing and
    short texts have an answer. BatchNorm is over all positions of a micro-batch that are no padding; the convolution
    before it has no bias.
    Source: Kim 2014, arXiv 1408.5882, section 2 (one channel; without zeros at the ends, and without BatchNorm).
    """

    def __init__(
        self,
        *,
        vocabulary_size: int,
        outputs: Outputs,
        hidden_size: int = 64,
        widths: Sequence[int] = (3, 4, 5),
        num_filters: int = 64,
        activation: Literal["relu", "gelu"] = "relu",
        momentum: float | None = 0.1,
        epsilon: float = 1e-5,
        embedding_dropout: float = 0.0,
        head_dropout: float = 0.0,
    ) -> None:
        """`momentum` and `epsilon` are of BatchNorm; without `momentum` there is none."""
        super().__init__()
        self.vocabulary_size, self.hidden_size, self.widths = vocabulary_size, hidden_size, tuple(widths)
        self.embedding = nn.Embedding(vocabulary_size, hidden_size)
        self.embedding_dropout, self.head_dropout = Dropout(embedding_dropout), Dropout(head_dropout)
        # No list, which would be taken for layers one above the other.
        self.filters = nn.ModuleDict(
            {
                f"width_{width}": Filters(
                    hidden_size,
                    width,
                    Normalized(num_filters, activation=activation, momentum=momentum, epsilon=epsilon),
                    num_filters,
                )
                for width in self.widths
            }
        )
        self.head = nn.Linear(num_filters * len(self.widths), outputs.size)

    def forward(
        self, tokens_BT: Tensor, positions_BT: Tensor | None = None, document_ids_BT: Tensor | None = None
    ) -> ModelOutput:
        """Features [B, filters of all widths] and the head for them. Without `document_ids_BT` there is no padding;
        positions are unread. Documents packed in a row are one text."""
        real_BT, is_text_B = texts_of(document_ids_BT)
        x_BTD = self.embedding_dropout(self.embedding(tokens_BT))
        if real_BT is not None:
            x_BTD = torch.where(real_BT[..., None], x_BTD, 0.0)
        x_BDT = x_BTD.transpose(1, 2)
        found: list[Tensor] = []
        for filters in self.filters.values():
            x_BTC = filters(x_BDT, real_BT)
            if real_BT is not None:
                x_BTC = x_BTC.masked_fill(~real_BT[..., None], -torch.inf)
            found.append(x_BTC.amax(1))
        features_BC = torch.cat(found, 1)
        if is_text_B is not None:  # a row of padding has no largest value
            features_BC = torch.where(is_text_B[:, None], features_BC, 0.0)
        return ModelOutput(self.head_dropout(features_BC), self.head)
