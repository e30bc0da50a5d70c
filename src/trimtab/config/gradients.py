"""What is done to gradients between backward and update, in the order of the fields."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trimtab.config.base import NonNegative, Positive, Section


class NormClip(Section):
    """Scale the whole gradient down to `threshold` when its norm is larger (Pascanu et al. 2013)."""

    name: Literal["norm"] = "norm"
    threshold: Positive = Field(1.0, description="largest norm that is left as it is")
    groups: dict[str, Positive] = Field(
        default_factory=dict,
        description="pattern of parameter names to a threshold for the norm of those parameters alone; the last that "
        "fits acts, and the others are clipped together",
    )


class ValueClip(Section):
    """Bring every value of the gradient into [-threshold, threshold]."""

    name: Literal["value"] = "value"
    threshold: Positive = Field(1.0, description="largest value that is left as it is")


class ParameterClip(Section):
    """Scale each parameter's gradient down to `threshold` when its own norm is larger."""

    name: Literal["parameter"] = "parameter"
    threshold: Positive = Field(1.0, description="largest norm that is left as it is")


class AgcClip(Section):
    """Scale a unit's gradient down when it is large for the unit's weights (Brock et al. 2021, arXiv 2102.06171)."""

    name: Literal["agc"] = "agc"
    threshold: Positive = Field(0.01, description="largest norm of a row's gradient, as a part of the row's own norm")
    epsilon: Positive = Field(1e-3, description="least norm of a row, for the comparison")


class QuantileClip(Section):
    """Scale the whole gradient down to a quantile of the norms before (Seetharaman et al. 2020, arXiv 2007.14469)."""

    name: Literal["quantile"] = "quantile"
    quantile: float = Field(0.9, gt=0.0, le=1.0, description="of the norms of the last `memory` steps")
    memory: int = Field(100, ge=10, le=10_000, description="steps; the first so many are not clipped")


class ZScoreClip(Section):
    """Scale the whole gradient down to so many deviations above the mean norm (Kumar et al. 2025, arXiv 2504.02507)."""

    name: Literal["z_score"] = "z_score"
    deviations: Positive = Field(2.5, description="above the running mean of the norm")
    memory: int = Field(33, ge=10, le=10_000, description="steps of the running mean; none is clipped before")


class NoClip(Section):
    """Leave the gradient as it is."""

    name: Literal["none"] = "none"


ClipConfig = Annotated[
    NormClip | ValueClip | ParameterClip | AgcClip | QuantileClip | ZScoreClip | NoClip, Field(discriminator="name")
]


class NoiseConfig(Section):
    """Gaussian noise of variance scale / (1 + step)^power on the clipped gradient (Neelakantan et al. 2015)."""

    scale: NonNegative = Field(0.0, description="variance at the first step; 0: none")
    power: NonNegative = Field(0.55, description="how fast it fades")


class GradientsConfig(Section):
    """What happens to the gradient between backward and update, in this order."""

    centralize: bool = Field(
        False, description="take from each row of a matrix's gradient its mean (Yong et al. 2020, arXiv 2004.01461)"
    )
    clip: ClipConfig = Field(default_factory=NormClip.model_construct)
    noise: NoiseConfig = Field(default_factory=NoiseConfig.model_construct)
    skip_non_finite: bool = Field(True, description="a step whose gradient is not finite changes nothing")
    max_skipped: int = Field(
        20,
        ge=1,
        description="so many skipped steps on end are what recovery.non_finite acts on "
        "(fp16: after the scale is at its floor)",
    )
