"""Embeddings that are changed a little whenever they are trained on; what is judged stays as it is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trimtab.config.base import NonNegative, Rate, Section


class EmbeddingNoiseConfig(Section):
    """Noise on embeddings: NEFTune (Jain et al. 2023, arXiv 2310.05914)."""

    alpha: NonNegative = Field(
        0.0, description="even noise between -1 and 1 times alpha / sqrt(positions * width); 5 to 15; 0: none"
    )


class EmbeddingMixupConfig(Section):
    """Two texts, and the losses of their targets, in one (Guo et al. 2019, arXiv 1905.08941, wordMixup)."""

    alpha: NonNegative = Field(0.0, description="their shares are drawn from Beta(alpha, alpha); 0: none")


class EmbeddingCutoutConfig(Section):
    """Parts of embeddings set to 0: cutoff (Shen et al. 2020, arXiv 2009.13818)."""

    rate: Rate = Field(0.0, description="part that is cut out; 0: none")
    kind: Literal["span", "token", "feature"] = Field(
        "span", description="positions that stand together, single ones, or columns of the whole text"
    )


class EmbeddingConfig(Section):
    """What is drawn is a function of the seed, the step and the micro-batch, so that a resumed run draws the same."""

    noise: EmbeddingNoiseConfig = Field(default_factory=EmbeddingNoiseConfig.model_construct)
    mixup: EmbeddingMixupConfig = Field(default_factory=EmbeddingMixupConfig.model_construct)
    cutout: EmbeddingCutoutConfig = Field(default_factory=EmbeddingCutoutConfig.model_construct)

    @property
    def asked(self) -> tuple[str, ...]:
        """The names of those that change something."""
        values = {"noise.alpha": self.noise.alpha, "mixup.alpha": self.mixup.alpha, "cutout.rate": self.cutout.rate}
        return tuple(name for name, value in values.items() if value > 0)
