"""How a micro-batch becomes gradients, and how the gradients of a step do."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from trimtab.config.base import Count, NonNegative, Positive, Section


class PlainProcedure(Section):
    """One pass forward, one back."""

    name: Literal["plain"] = "plain"


class RDropConfig(Section):
    """Two passes under different dropout, whose answers are kept together (Liang et al. 2021, arXiv 2106.14448)."""

    name: Literal["r_drop"] = "r_drop"
    alpha: Positive = Field(1.0, description="weight of the divergence, as in the paper: 0.5 to 5")


class FgmConfig(Section):
    """A second pass at embeddings that one step made worse (Miyato et al. 2017, arXiv 1605.07725)."""

    name: Literal["fgm"] = "fgm"
    radius: Positive = Field(1.0, description="2-norm of what is added to the embeddings of a text (epsilon)")
    weight: Positive = Field(1.0, description="weight of the objective there")


class PgdConfig(Section):
    """As fgm, by several steps and back into a ball (Madry et al. 2018, arXiv 1706.06083)."""

    name: Literal["pgd"] = "pgd"
    radius: Positive = Field(1.0, description="largest 2-norm of what is added to the embeddings of a text (epsilon)")
    step_size: Positive = Field(0.3, description="2-norm of a step (alpha)")
    steps: Count = Field(3, description="passes besides the plain one")
    weight: Positive = Field(1.0, description="weight of the objective at the end")


class FreeLBConfig(Section):
    """Every step of a perturbation gives its part of the gradient (Zhu et al. 2020, arXiv 1909.11764)."""

    name: Literal["free_lb"] = "free_lb"
    radius: Positive = Field(0.5, description="largest 2-norm of what is added to the embeddings of a text (epsilon)")
    step_size: Positive = Field(0.1, description="2-norm of a step (alpha)")
    steps: int = Field(3, ge=2, description="passes in all")
    initial: NonNegative = Field(
        0.1, description="the first is even between -1 and 1 times this over sqrt(positions * width); 0: none"
    )


class GradientCacheConfig(Section):
    """An objective over all micro-batches of a step, in the memory of one (Gao et al. 2021, arXiv 2101.06983)."""

    name: Literal["gradient_cache"] = "gradient_cache"


ProcedureConfig = Annotated[
    PlainProcedure | RDropConfig | FgmConfig | PgdConfig | FreeLBConfig | GradientCacheConfig,
    Field(discriminator="name"),
]


class NoSharpness(Section):
    """The gradient where the weights are."""

    name: Literal["none"] = "none"


class SamConfig(Section):
    """The gradient at weights that a step made worse: sharpness-aware (Foret et al. 2021, arXiv 2010.01412)."""

    name: Literal["sam"] = "sam"
    radius: Positive = Field(0.05, description="2-norm of that step (rho)")


class AsamConfig(Section):
    """The same, each weight moved by its own size (Kwon et al. 2021, arXiv 2102.11600)."""

    name: Literal["asam"] = "asam"
    radius: Positive = Field(0.5, description="norm of that step over the sizes of the weights (rho)")


SharpnessConfig = Annotated[NoSharpness | SamConfig | AsamConfig, Field(discriminator="name")]

ADVERSARIAL: Final = (FgmConfig, PgdConfig, FreeLBConfig)
"""They change embeddings."""
