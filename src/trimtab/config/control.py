"""What may end a run early, and what is saved of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trimtab.config.base import Count, NonNegative, Section


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
