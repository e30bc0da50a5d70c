"""The head that makes vectors of texts.

Shape suffixes: B texts · D hidden size · E numbers of a vector.
"""

from __future__ import annotations

import math
from typing import Final, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.signals import Vectors

_HIGHEST: Final = math.log(100.0)
"""Of the logarithm of what similarities are multiplied with: a temperature of 0.01."""


@final
class EmbeddingHead(nn.Module):
    """Features [B, D] -> vectors [B, E], in fp32 where their length is made 1.

    With a temperature that is learned it also knows `scale`, what similarities are multiplied with: 1 / temperature at
    the beginning, at most 100; beyond that the gradient still passes, so that it finds its way back.
    Source: Radford et al. 2021, arXiv 2103.00020, section 2.5 (the logarithm is trained, and the bound).
    """

    def __init__(self, hidden_size: int, vectors: Vectors) -> None:
        super().__init__()
        self.vectors = vectors
        self.projection = None if vectors.size is None else nn.Linear(hidden_size, vectors.size, bias=False)
        # Its distance from the beginning, and called a bias: it begins at 0, and does not decay.
        learns = vectors.temperature is not None
        self.scale_bias = nn.Parameter(torch.zeros(1)) if learns else None

    def forward(self, features_BD: Tensor) -> Tensor:
        """The vectors."""
        vectors_BE: Tensor = features_BD if self.projection is None else self.projection(features_BD)
        if not self.vectors.normalize:
            return vectors_BE
        return F.normalize(vectors_BE if vectors_BE.dtype == torch.float64 else vectors_BE.float(), dim=-1)

    def scale(self) -> Tensor | None:
        """A scalar, or None where the temperature is not learned."""
        if self.scale_bias is None or self.vectors.temperature is None:
            return None
        raw = self.scale_bias.float() if self.scale_bias.dtype != torch.float64 else self.scale_bias
        logarithm = raw.squeeze() - math.log(self.vectors.temperature)
        return (logarithm + (logarithm.clamp_max(_HIGHEST) - logarithm).detach()).exp()


def mean_of_texts(features_BTD: Tensor, document_ids_BT: Tensor | None) -> Tensor:
    """The mean over the positions of each row that are no padding, [B, D]; 0 of a row of padding."""
    if document_ids_BT is None:
        return features_BTD.mean(1)
    real_BT1 = (document_ids_BT >= 0)[:, :, None]
    # Replaced, not multiplied by zero, and in fp32: a long sum of 16-bit numbers would lose its end.
    sum_BD = torch.where(real_BT1, features_BTD, 0.0).sum(
        1, dtype=torch.promote_types(features_BTD.dtype, torch.float32)
    )
    return (sum_BD / real_BT1.sum(1).clamp_min(1)).type_as(features_BTD)
