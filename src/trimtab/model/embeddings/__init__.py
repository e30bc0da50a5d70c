"""A model's embeddings: where they are, and how they are changed in training."""

from trimtab.model.embeddings.changing import changing
from trimtab.model.embeddings.cutout import Cutout
from trimtab.model.embeddings.factory import build_embedding_transforms
from trimtab.model.embeddings.mixup import Mixed, Mixup
from trimtab.model.embeddings.noise import EmbeddingNoise
from trimtab.model.embeddings.reach import embedding_of
from trimtab.model.embeddings.transforms import EmbeddingTransforms

__all__ = [
    "Cutout",
    "EmbeddingNoise",
    "EmbeddingTransforms",
    "Mixed",
    "Mixup",
    "build_embedding_transforms",
    "changing",
    "embedding_of",
]
