"""Noise on embeddings.

Shape suffixes: B texts · T positions · D hidden size.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor


@final
class EmbeddingNoise:
    """Even noise between -1 and 1 times alpha / sqrt(L D), with L the real positions of the text; none on padding.

    Source: Jain et al. 2023, arXiv 2310.05914, algorithm 1.
    """

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def __call__(self, embeddings_BTD: Tensor, real_BT: Tensor, generator: torch.Generator) -> Tensor:
        """The embeddings with noise."""
        drawn = torch.rand(embeddings_BTD.shape, generator=generator, device=embeddings_BTD.device)
        length_B = real_BT.sum(1).clamp_min(1)
        scale_B = self.alpha / (length_B * embeddings_BTD.shape[2]).sqrt()
        noise = (2.0 * drawn - 1.0) * (scale_B[:, None] * real_BT)[:, :, None]
        return embeddings_BTD + noise.to(embeddings_BTD.dtype)
