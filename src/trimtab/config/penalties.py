"""What is added to the loss for the weights themselves, once an update."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trimtab.config.base import NonNegative, Section, Texts


class PenaltyConfig(Section):
    """A penalty on the size of weights."""

    strength: NonNegative = Field(0.0, description="lambda; 0: none")
    parameters: Literal["matrices", "all"] | Texts = Field(
        "matrices",
        description="which are penalized: the matrices but embeddings, all, or patterns as of file names: "
        "['blocks.*.up.weight']",
    )


class PenaltiesConfig(Section):
    """Penalties on weights; weight decay, which adaptive optimizers want instead, is optimizer.weight_decay."""

    l1: PenaltyConfig = Field(
        default_factory=PenaltyConfig.model_construct,
        description="lambda * sum |w|, as a proximal step after each update: weights become exactly 0",
    )
    l2: PenaltyConfig = Field(
        default_factory=PenaltyConfig.model_construct,
        description="lambda / 2 * sum w^2: its gradient lambda * w is in the gradient before clipping",
    )
