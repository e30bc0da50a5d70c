"""From a configuration to what is done to embeddings."""

from __future__ import annotations

from trimtab.config import EmbeddingConfig
from trimtab.model.embeddings.cutout import Cutout
from trimtab.model.embeddings.mixup import Mixup
from trimtab.model.embeddings.noise import EmbeddingNoise
from trimtab.model.embeddings.transforms import EmbeddingTransforms


def build_embedding_transforms(config: EmbeddingConfig) -> EmbeddingTransforms:
    """What `config` describes."""
    return EmbeddingTransforms(
        Mixup(config.mixup.alpha) if config.mixup.alpha > 0 else None,
        Cutout(config.cutout.rate, config.cutout.kind) if config.cutout.rate > 0 else None,
        EmbeddingNoise(config.noise.alpha) if config.noise.alpha > 0 else None,
    )
