"""What is done to embeddings in training, in a fixed order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from trimtab.model.embeddings.cutout import Cutout
from trimtab.model.embeddings.mixup import Mixup
from trimtab.model.embeddings.noise import EmbeddingNoise


@final
@dataclass(frozen=True, slots=True)
class EmbeddingTransforms:
    """First texts are mixed, then parts cut out, then noise is added; None: not."""

    mixup: Mixup | None = None
    cutout: Cutout | None = None
    noise: EmbeddingNoise | None = None

    @property
    def are_any(self) -> bool:
        """Whether something is changed."""
        return not (self.mixup is None and self.cutout is None and self.noise is None)

    def __call__(self, embeddings_BTD: Tensor, real_BT: Tensor, generator: torch.Generator) -> Tensor:
        """All but the mixing, which concerns targets, too; `real_BT` is False on padding."""
        for transform in (self.cutout, self.noise):
            if transform is not None:
                embeddings_BTD = transform(embeddings_BTD, real_BT, generator)
        return embeddings_BTD
