"""Which average of the weights is kept beside those that are trained, and when it is judged."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trimtab.config.base import Count, Rate, Section, Span
from trimtab.config.schedule import Stretch

_EVERY = "updates from one average to the next; skipped ones do not count"
_BATCH_NORM = "of training data, for the statistics of BatchNorm under averaged weights, where the model has it"


class NoAveraging(Section):
    """The weights that are trained are all there are."""

    name: Literal["none"] = "none"


class AveragingSection(Section):
    """What every average has."""

    name: str
    every: Stretch = Field(1, description=_EVERY)
    evaluate: Literal["both", "average"] = Field(
        "both", description="what an evaluation judges: both doubles its cost; average leaves out the plain weights"
    )
    batch_norm_batches: Count = Field(100, description=_BATCH_NORM)


class EmaConfig(AveragingSection):
    """An exponential moving average of the weights (Polyak and Juditsky 1992; Morales-Brotons et al. 2024)."""

    name: Literal["ema"] = "ema"
    decay: Rate = Field(0.999, description="what an average keeps of the one before")
    half_life: Stretch | None = Field(
        None, description="updates after which a weight counts half in the average; in place of decay"
    )
    warmup: bool = Field(True, description="the n-th average keeps at most (1 + n) / (10 + n) of the one before")


class SwaConfig(AveragingSection):
    """The equal mean of the weights from `start` on (Izmailov et al. 2018, arXiv 1803.05407)."""

    name: Literal["swa"] = "swa"
    start: Span = Field(0.75, description="where in the run the first weights are taken")


AveragingConfig = Annotated[NoAveraging | EmaConfig | SwaConfig, Field(discriminator="name")]
