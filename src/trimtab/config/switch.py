"""Another optimizer from some step on."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from trimtab.config.base import Count, Section
from trimtab.config.optimizer import OptimizerConfig
from trimtab.config.schedule import Stretch


class OptimizerSwitch(Section):
    """Another optimizer from some step on, or once a metric stands still (Keskar and Socher 2017, arXiv 1712.07628)."""

    to: OptimizerConfig = Field(description="the optimizer that takes over, with a fresh state; the schedules go on")
    at: Stretch | None = Field(None, description="after so much of the run; null: only by `patience`")
    patience: Count | None = Field(
        None, description="evaluations on end without improvement after which it takes over; null: only by `at`"
    )
    metric: str = Field("validation/loss", min_length=1, description="what stands still then")

    @model_validator(mode="after")
    def _some_time(self) -> Self:
        if self.at is None and self.patience is None:
            raise ValueError("say when: give at, patience, or both, of which the first counts")
        return self
