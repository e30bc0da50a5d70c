"""What may end a run early, what is saved of it, and what may steer it meanwhile."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trimtab.config.base import Count, NonNegative, Positive, Section
from trimtab.config.unfreezing import NoUnfreezingControl, UnfreezingControl


class PatienceStopping(Section):
    """Stop when the metric has not improved by more than `min_delta` for `patience` evaluations."""

    name: Literal["patience"] = "patience"
    patience: Count = Field(5, description="evaluations on end without improvement")
    min_delta: NonNegative = Field(0.0, description="a change that is not larger is no improvement")
    metric: str = Field(
        "validation/loss",
        min_length=1,
        description="what must improve; of the weights that checkpoint.metric is of, if not given",
    )
    restore_best: bool = Field(
        True, description="leave the best checkpoint's weights, by checkpoint.metric, in the model"
    )


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
Reduction = Annotated[float, Field(gt=0.0, lt=1.0)]
LowestFactor = Annotated[float, Field(ge=1e-4, lt=1.0)]
"""Bounded below as `ADJUSTABLE` bounds the factor on the learning rate."""

_FACTOR = "what a reduction leaves of the rate"
_MINIMUM = "the lowest factor on the scheduled rate, which ends the reductions"


class NoLearningRateControl(Section):
    """The schedule alone."""

    name: Literal["none"] = "none"


class PlateauControl(Section):
    """Lower the learning rate when the metric no longer improves (torch's ReduceLROnPlateau)."""

    name: Literal["plateau"] = "plateau"
    metric: str = Field("validation/loss", min_length=1, description="what must improve; its direction is known")
    patience: Count = Field(3, description="evaluations on end without improvement before a reduction")
    factor: Reduction = Field(0.5, description=_FACTOR)
    minimum: LowestFactor = Field(0.01, description=_MINIMUM)
    threshold: NonNegative = Field(1e-4, description="a change that is not larger is no improvement")
    threshold_mode: Literal["relative", "absolute"] = Field(
        "relative", description="the threshold is a part of the best value, or a difference from it"
    )
    cooldown: int = Field(0, ge=0, description="evaluations after a reduction in which none counts as bad")


class UnsteadinessControl(Section):
    """Lower the learning rate while gradient norm or loss are far more unsteady than they were."""

    name: Literal["unsteadiness"] = "unsteadiness"
    signal: Literal["grad_norm", "loss_spread", "either"] = Field(
        "either",
        description="median gradient norm, standard deviation of the loss from step to step, or whichever is high",
    )
    every: int = Field(10, ge=4, description="steps from which one value is taken")
    memory: int = Field(50, ge=8, description="values that a new one is compared with")
    deviations: Positive = Field(3.5, description="robust z-score from which a value is high")
    patience: Count = Field(3, description="high values on end before a reduction")
    factor: Reduction = Field(0.5, description=_FACTOR)
    minimum: LowestFactor = Field(0.1, description=_MINIMUM)
    cooldown: int = Field(10, ge=0, description="values after a reduction in which none counts as high")
    recovery: Count | None = Field(
        None, description="values on end that are not high, after which one reduction is taken back; null: never"
    )


LearningRateControl = Annotated[
    NoLearningRateControl | PlateauControl | UnsteadinessControl, Field(discriminator="name")
]


Regularizer = Literal["dropout", "weight_decay", "label_smoothing"]


class NoRegularizationControl(Section):
    """As configured."""

    name: Literal["none"] = "none"


class GapControl(Section):
    """More dropout, weight decay and label smoothing while the generalization gap is wide, less when it has closed."""

    name: Literal["gap"] = "gap"
    settings: Annotated[tuple[Regularizer, ...], Field(strict=False, min_length=1)] | None = Field(
        None, description="what is adjusted, each by itself; null: all that the run has"
    )
    high: float = Field(0.3, description="gap, in the unit of the loss, above which regularization rises")
    low: float = Field(0.1, description="gap below which it falls again; between the two nothing changes")
    factor: float = Field(1.25, gt=1.0, le=3.0, description="factor of one rise, and divisor of one fall")
    highest: float = Field(2.0, ge=1.0, le=3.0, description="the highest factor on what is configured")
    lowest: float = Field(1.0, ge=0.0, le=1.0, description="the lowest; 1: never less than is configured")
    patience: Count = Field(2, description="evaluations on end on one side before a change")
    cooldown: int = Field(1, ge=0, description="evaluations after a change that do not count")

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low must lie below high: {self.low:g}, and high is {self.high:g}")
        if self.lowest == self.highest:
            raise ValueError("lowest and highest are both 1: nothing could be adjusted")
        if len(set(self.settings or ())) < len(self.settings or ()):
            raise ValueError("settings names one twice")
        return self


RegularizationControl = Annotated[NoRegularizationControl | GapControl, Field(discriminator="name")]


class ControlConfig(Section):
    """What may steer a run while it goes on; every change is a decision in the record, with its reason."""

    learning_rate: LearningRateControl = Field(default_factory=NoLearningRateControl.model_construct)
    regularization: RegularizationControl = Field(default_factory=NoRegularizationControl.model_construct)
    unfreezing: UnfreezingControl = Field(default_factory=NoUnfreezingControl.model_construct)


class CheckpointConfig(Section):
    """What is written under checkpoints/, and kept."""

    every: Count | None = Field(None, description="steps between saves; evaluation.every if not given")
    every_minutes: Positive | None = Field(
        None, description="minutes after the last save, of whatever reason, until another; null: by steps alone"
    )
    keep_latest: Count = Field(2, description="newest checkpoints kept")
    keep_best: int = Field(
        1, ge=0, description="best checkpoints saved and kept, by `metric`; `trimtab soup RUN --top` averages them"
    )
    metric: str = Field(
        "validation/loss",
        min_length=1,
        description="what tells the best checkpoint, its direction is known; if not given stopping.metric, or by the "
        "task: accuracy of classes, macro_f1 of tags, micro_f1 of several labels, else the loss",
    )
    min_improvement: NonNegative = Field(
        0.0, description="an evaluation that is better by no more than this is not saved for being among the best"
    )
    keep_every: Count | None = Field(
        None, description="steps: of each stretch of so many the first checkpoint is kept for good, from the second on"
    )
    keep_every_minutes: Positive | None = Field(
        None, description="minutes of the clock: of each stretch of so many the first checkpoint is kept for good"
    )
    differential: bool = Field(
        False,
        description="what has not changed since the checkpoint before, such as frozen weights, is on the disk once for "
        "both",
    )
    background: bool = Field(True, description="write while training goes on; it stands still for the copy alone")
    on_failure: Literal["stop", "go_on"] = Field(
        "stop", description="what a checkpoint means that could not be written in three attempts, before the last one"
    )
