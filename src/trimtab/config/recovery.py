"""What is done about steps that do harm: a loss that leaves its level, gradients that are not finite."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trimtab.config.base import Count, Positive, Section

Signal = Literal["loss", "grad_norm", "either"]
SpikeMemory = Annotated[int, Field(ge=16, le=10_000)]

_SIGNAL = "what is looked at: the training loss, the gradient norm, or both"
_MEMORY = "steps that a new one is compared with; judged from half as many on"
_DEVIATIONS = "robust z-score from which a step is high"
_PATIENCE = "high steps, with fewer than 8 between two, that are a spike"


class NoSpikes(Section):
    """Spikes are not looked for."""

    name: Literal["none"] = "none"


class ReportSpikes(Section):
    """Tell of a spike, with the samples of its steps; nothing is changed."""

    name: Literal["report"] = "report"
    signal: Signal = Field("either", description=_SIGNAL)
    memory: SpikeMemory = Field(100, description=_MEMORY)
    deviations: Positive = Field(8.0, description=_DEVIATIONS)
    patience: Count = Field(3, description=_PATIENCE)


class SkipSpikes(Section):
    """Skip, on the device, steps whose gradient is far larger than those before it."""

    name: Literal["skip"] = "skip"
    deviations: Positive = Field(8.0, description="above the running mean of the gradient norm")
    memory: int = Field(100, ge=10, le=10_000, description="steps of the running mean; none is skipped before")


class RollBackSpikes(Section):
    """Go back to before a spike, and leave out the samples of its steps."""

    name: Literal["rollback"] = "rollback"
    signal: Signal = Field("either", description=_SIGNAL)
    memory: SpikeMemory = Field(100, description=_MEMORY)
    deviations: Positive = Field(8.0, description=_DEVIATIONS)
    patience: Count = Field(3, description=_PATIENCE)


SpikeConfig = Annotated[NoSpikes | ReportSpikes | SkipSpikes | RollBackSpikes, Field(discriminator="name")]


class RollbackConfig(Section):
    """How a run goes back, and how often."""

    budget: Count = Field(3, description="rollbacks in a run; what would be one more ends it with exit code 4")
    margin: int = Field(1, ge=0, description="steps before the first high one that are undone and left out, too")
    factor: float = Field(
        1.0, ge=1e-4, le=1.0, description="of the learning rate, for `slow_steps` after a rollback; 1: as scheduled"
    )
    slow_steps: Count = Field(100, description="steps at the lower rate")


class RecoveryConfig(Section):
    """What is done about steps that do harm; every decision is in the record, with its reason and the samples."""

    spikes: SpikeConfig = Field(default_factory=ReportSpikes.model_construct)
    non_finite: Literal["stop", "rollback"] = Field(
        "stop",
        description="what gradients.max_skipped skipped steps on end mean: the end, with exit code 4, or a rollback",
    )
    rollback: RollbackConfig = Field(default_factory=RollbackConfig.model_construct)

    @property
    def goes_back(self) -> bool:
        """Whether anything in it rolls back."""
        return self.non_finite == "rollback" or isinstance(self.spikes, RollBackSpikes)
