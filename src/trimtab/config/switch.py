"""Another optimizer from some step on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from trimtab.config.base import Count, Section
from trimtab.config.control import PatienceStopping
from trimtab.config.optimizer import OptimizerConfig
from trimtab.config.schedule import Stretch

if TYPE_CHECKING:
    from trimtab.config.run import Config


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


def beside_switch(config: Config) -> str:
    """Why `config` cannot switch its optimizer as it says; "" where it can."""
    switch, stopping = config.optimizer_switch, config.stopping
    if switch is None:
        return ""
    for key, one in config.named_optimizers.items():
        if one.name == "schedule_free_adamw":
            return (
                f"optimizer_switch does not go with {key}.name schedule_free_adamw: the weights that it trains are "
                "not those that it is judged by"
            )
    if switch.at is not None and config.lies_after_the_end(switch.at):
        return f"optimizer_switch.at {switch.at!r} lies after the last of training.steps {config.training.steps}"
    if (
        switch.patience is not None
        and isinstance(stopping, PatienceStopping)
        and (stopping.metric == switch.metric and stopping.patience <= switch.patience)
    ):
        return (
            f"optimizer_switch.patience {switch.patience} has no effect: stopping.patience {stopping.patience} on "
            "the same metric ends the run before"
        )
    return ""
