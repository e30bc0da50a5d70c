"""What may end a run early, and what is saved of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trimtab.config.base import Count, NonNegative, Positive, Section


class PatienceStopping(Section):
    """Stop when the metric has not improved by more than `min_delta` for `patience` evaluations."""

    name: Literal["patience"] = "patience"
    patience: Count = Field(5, description="evaluations on end without improvement")
    min_delta: NonNegative = Field(0.0, description="a change that is not larger is no improvement")
    metric: str = Field("validation/loss", min_length=1, description="what must improve")
    restore_best: bool = Field(True, description="leave the best checkpoint's weights in the model")


class NoStopping(Section):
    """Run all steps."""

    name: Literal["none"] = "none"


StoppingConfig = Annotated[PatienceStopping | NoStopping, Field(discriminator="name")]


class FixedBatch(Section):
    """The same batch in every step."""

    name: Literal["fixed"] = "fixed"


class NoiseScaleBatch(Section):
    """Raise the batch towards the gradient noise scale, which logging.noise_scale measures; it is never lowered."""

    name: Literal["noise_scale"] = "noise_scale"
    part: Positive = Field(1.0, description="of the noise scale, that the batch is raised to")
    most: int = Field(1_024, ge=2, le=2**20, description="sequences in an update that are never passed")
    hysteresis: float = Field(1.5, ge=1.0, description="times the batch that its target must be before it is raised")
    wait: Count = Field(100, description="steps after a raise before the next one; each at most doubles the batch")
    error: Positive = Field(0.5, description="largest relative standard error of a noise scale that is acted on")


BatchControlConfig = Annotated[FixedBatch | NoiseScaleBatch, Field(discriminator="name")]


class CheckpointConfig(Section):
    """What is written under checkpoints/, and kept."""

    every: Count | None = Field(None, description="steps between saves; evaluation.every if not given")
    keep_latest: Count = Field(2, description="newest checkpoints kept")
    keep_best: int = Field(1, ge=0, description="best checkpoints kept, by `metric`")
    metric: str = Field("validation/loss", min_length=1, description="what tells the best checkpoint")
    background: bool = Field(True, description="write while training goes on; it stands still for the copy alone")
    on_failure: Literal["stop", "go_on"] = Field(
        "stop", description="what a checkpoint means that could not be written in three attempts, before the last one"
    )
