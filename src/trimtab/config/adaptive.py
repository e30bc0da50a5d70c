"""How much is written of every layer: everything, or everything around what is remarkable."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trimtab.config.base import Section

BandMetric = Literal["train/loss", "grad_norm", "tokens_per_second", "memory_bytes"]


class FullLogging(Section):
    """The values of every layer are written in every window; old ones are thinned."""

    name: Literal["none"] = "none"


class AdaptiveLoggingConfig(Section):
    """They are written now and then, and in every window around one in which a metric leaves its band."""

    name: Literal["bands"] = "bands"
    metrics: Annotated[tuple[BandMetric, ...], Field(strict=False, min_length=1)] = Field(
        ("train/loss", "grad_norm", "tokens_per_second", "memory_bytes"),
        description="those that have a band: the forecast from the windows before, give or take their usual changes",
    )
    threshold: float = Field(
        6.0, ge=2.0, le=100.0, description="half the width of a band, in robust standard deviations of the changes"
    )
    calm_every: int = Field(10, ge=2, le=1_000, description="windows of which one is written while all is calm")
    around: int = Field(
        20, ge=1, le=500, description="windows before and after a remarkable one of which all are written"
    )
    memory: int = Field(100, ge=16, le=1_000, description="windows that a forecast is made from")


AdaptiveConfig = Annotated[FullLogging | AdaptiveLoggingConfig, Field(discriminator="name")]
