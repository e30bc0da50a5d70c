"""A whole run: one section for each room."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

from pydantic import Field, model_validator

from trimtab.config.adopted import tokenizer_unlike, with_metrics_of_task, with_tokenizer_of_model
from trimtab.config.alerts import AlertsConfig
from trimtab.config.augmentation import beside_augmentation
from trimtab.config.averaging import AveragingConfig, NoAveraging, SwaConfig
from trimtab.config.base import Budget, Section, UnknownLengthError, steps_asked, steps_of
from trimtab.config.beside_procedure import beside_procedure
from trimtab.config.control import (
    BatchControlConfig,
    CheckpointConfig,
    ControlConfig,
    FixedBatch,
    NoiseScaleBatch,
    PatienceStopping,
    StoppingConfig,
)
from trimtab.config.curriculum import beside_curriculum
from trimtab.config.data import DataConfig
from trimtab.config.doctor import DoctorConfig
from trimtab.config.embedding import EmbeddingConfig
from trimtab.config.evaluation import EvaluationConfig, misjudged
from trimtab.config.fit import misfits
from trimtab.config.fp8 import not_in_fp8
from trimtab.config.gradients import GradientsConfig
from trimtab.config.hardware import HardwareConfig
from trimtab.config.lint import LintConfig
from trimtab.config.model import DecoderConfig, ModelConfig, OutsideModel, TransformerShape
from trimtab.config.monitor import LoggingConfig
from trimtab.config.network import without_batch
from trimtab.config.objective import CrossEntropyConfig, ObjectiveConfig
from trimtab.config.optimizer import AdamWConfig, LinearScaling, OptimizerConfig, SquareRootScaling
from trimtab.config.penalties import PenaltiesConfig
from trimtab.config.privacy import PrivacyConfig
from trimtab.config.procedure import NoSharpness, PlainProcedure, ProcedureConfig, SharpnessConfig
from trimtab.config.profile import ProfileConfig, bounds
from trimtab.config.recovery import RecoveryConfig, SkipSpikes
from trimtab.config.registry.optimizer import OPTIMIZERS
from trimtab.config.regularizers import regularizers, unregularized
from trimtab.config.schedule import CosineSchedule, PiecewiseSchedule, ScheduleConfig, counts_data
from trimtab.config.sinks import SinksConfig, sinks_twice
from trimtab.config.stream import beside_stream
from trimtab.config.switch import OptimizerSwitch, beside_switch
from trimtab.config.task import (
    CausalLanguageModeling,
    Contrastive,
    MaskedLanguageModeling,
    RowTask,
    SequenceToSequence,
    TaskConfig,
)
from trimtab.config.training import AutoPrecision, Bf16, Int4Quantization, NoQuantization, Split, TrainingConfig
from trimtab.config.unfreezing import beside_unfreezing
from trimtab.config.widths import beside_widths


class Config(Section):
    """What a run should be."""

    name: str = Field(
        "run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="part of the run directory's name"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="of weights, order of data, dropout and samples")
    task: TaskConfig = Field(default_factory=CausalLanguageModeling.model_construct)
    data: DataConfig = Field(default_factory=DataConfig.model_construct)
    model: ModelConfig = Field(default_factory=DecoderConfig.model_construct)
    objective: ObjectiveConfig = Field(default_factory=CrossEntropyConfig.model_construct)
    embedding: EmbeddingConfig = Field(default_factory=EmbeddingConfig.model_construct)
    procedure: ProcedureConfig = Field(default_factory=PlainProcedure.model_construct)
    sharpness: SharpnessConfig = Field(default_factory=NoSharpness.model_construct)
    penalties: PenaltiesConfig = Field(default_factory=PenaltiesConfig.model_construct)
    optimizer: OptimizerConfig = Field(default_factory=AdamWConfig.model_construct)
    optimizer_switch: OptimizerSwitch | None = Field(
        None, description="another optimizer from some step on; null: the same to the end"
    )
    schedule: ScheduleConfig = Field(default_factory=CosineSchedule.model_construct)
    decay_schedule: ScheduleConfig | None = Field(
        None, description="the weight decay over a run, as a part of optimizer.weight_decay; null: always the same"
    )
    dropout_schedule: ScheduleConfig | None = Field(
        None, description="every dropout rate over a run, as a part of what model.dropout says; null: always the same"
    )
    gradients: GradientsConfig = Field(default_factory=GradientsConfig.model_construct)
    averaging: AveragingConfig = Field(default_factory=NoAveraging.model_construct)
    training: TrainingConfig = Field(default_factory=TrainingConfig.model_construct)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig.model_construct)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig.model_construct)
    stopping: StoppingConfig = Field(default_factory=PatienceStopping.model_construct)
    batch_control: BatchControlConfig = Field(default_factory=FixedBatch.model_construct)
    control: ControlConfig = Field(default_factory=ControlConfig.model_construct)
    recovery: RecoveryConfig = Field(default_factory=RecoveryConfig.model_construct)
    logging: LoggingConfig = Field(default_factory=LoggingConfig.model_construct)
    sinks: SinksConfig = Field(
        (), description="where else metrics go: names, such as [tensorboard, wandb], or sections with a name each"
    )
    privacy: PrivacyConfig = Field(default_factory=PrivacyConfig.model_construct)
    hardware: HardwareConfig = Field(default_factory=HardwareConfig.model_construct)
    profile: ProfileConfig = Field(default_factory=ProfileConfig.model_construct)
    alerts: AlertsConfig = Field(default_factory=AlertsConfig.model_construct)
    doctor: DoctorConfig = Field(default_factory=DoctorConfig.model_construct)
    lint: LintConfig = Field(default_factory=LintConfig.model_construct)

    @model_validator(mode="before")
    @classmethod
    def _say_for_each_other(cls, values: Any) -> Any:
        return with_metrics_of_task(with_tokenizer_of_model(values))

    @model_validator(mode="after")
    def _together(self) -> Self:
        model, length = self.model, self.longest_sequence
        if refused := "; ".join([*misfits(self), *misjudged(self)]):
            raise ValueError(refused)
        if isinstance(model, TransformerShape) and model.max_positions is not None and model.max_positions < length:
            raise ValueError(f"data.sequence_length {length} is longer than model.max_positions {model.max_positions}")
        if refused := tokenizer_unlike(self.model, self.data.tokenizer):
            raise ValueError(refused)
        if self.training.precision.name == "fp16" and not self.gradients.skip_non_finite:
            raise ValueError(
                "training.precision.name fp16 finds its loss scale by skipping steps that overflow, "
                "and gradients.skip_non_finite is false"
            )
        skips = self.gradients.skip_non_finite or isinstance(self.recovery.spikes, SkipSpikes)
        if self.recovery.non_finite == "rollback" and not skips:
            raise ValueError(
                "recovery.non_finite rollback goes by skipped steps, and gradients.skip_non_finite is false"
            )
        if self.training.precision.name == "tf32" and self.training.device == "cpu":
            raise ValueError(
                "training.precision.name tf32 is for the tensor cores of NVIDIA GPUs, and training.device is cpu"
            )
        others = [*not_in_fp8(self), *unregularized(self), *sinks_twice(self.sinks), *beside_procedure(self)]
        if refused := "; ".join(others):
            raise ValueError(refused)
        for key, one in self.named_optimizers.items():
            if one.decay.target and not OPTIMIZERS[one.name].decouples:
                fitting = ", ".join(name for name, spec in OPTIMIZERS.items() if spec.decouples)
                raise ValueError(
                    f"{key}.decay.target is for weight decay apart from the gradient, and {key}.name {one.name} has "
                    f"another. Fitting: {fitting}"
                )
        if self.decay_schedule is not None and not any(one.weight_decay for one in self.optimizers):
            raise ValueError("decay_schedule has no effect: optimizer.weight_decay is 0")
        if self.model.unfreeze and (self.penalties.l1.strength or self.penalties.l2.strength):
            raise ValueError("penalties name parameters once, and model.unfreeze adds some later; leave one out")
        self._check_batch()
        self._check_quantization()
        if isinstance(self.batch_control, NoiseScaleBatch):
            if not self.logging.noise_scale.every:
                raise ValueError(
                    "batch_control.name noise_scale needs the noise scale measured, and logging.noise_scale.every is 0"
                )
            if not self.has_parts:
                raise ValueError(
                    "batch_control.name noise_scale compares the micro-batches of a step, and training.accumulation "
                    "is 1; half of training.micro_batch_size with training.accumulation=2 is the same batch"
                )
            larger = self.sequences_per_step + (1 if self.split is None else self.split.micro_batch_size)
            if self.batch_control.most < larger:
                raise ValueError(
                    f"batch_control.most {self.batch_control.most} leaves nothing to raise: a batch of "
                    f"{self.sequences_per_step} sequences and one more micro-batch are {larger}"
                )
            if self.training.accumulation_schedule is not None:
                raise ValueError("batch_control.name noise_scale and training.accumulation_schedule both set the batch")
        for refused in filter(
            None,
            (
                beside_switch(self),
                beside_unfreezing(self),
                beside_curriculum(self),
                beside_augmentation(self),
                beside_stream(self),
                without_batch(self),
                beside_widths(self),
            ),
        ):
            raise ValueError(refused)
        if self.averaging.name != "none" and self.optimizer.name == "schedule_free_adamw":
            raise ValueError(
                f"averaging.name {self.averaging.name} does not go with optimizer.name schedule_free_adamw, which is "
                "judged by an average of its own: an average of the weights that it trains would be worse than that"
            )
        if self.profile.steps is not None and bounds(self.profile.steps)[1] > self.training.steps:
            raise ValueError(
                f"profile.steps {self.profile.steps} reaches beyond the last of training.steps {self.training.steps}"
            )
        if isinstance(self.averaging, SwaConfig) and self.lies_after_the_end(self.averaging.start):
            raise ValueError(
                f"averaging.start {self.averaging.start!r} lies after the last of training.steps {self.training.steps}"
            )
        self._schedules()
        return self

    def _check_batch(self) -> None:
        training = self.training
        asked, micro = training.batch_size, training.micro_batch_size
        if asked is None:
            if micro == "auto":
                raise ValueError(
                    "training.micro_batch_size auto divides a given batch, and training.batch_size is not set"
                )
            return
        if isinstance(asked, str):
            if isinstance(self.task, RowTask):
                raise ValueError(
                    f"training.batch_size in tokens is for texts cut to one length, and task {self.task.name} has "
                    "texts of many; give it in sequences"
                )
            if _tokens(asked) % self.data.sequence_length:
                raise ValueError(
                    f"training.batch_size {asked} is no whole number of sequences of data.sequence_length "
                    f"{self.data.sequence_length}"
                )
        if micro != "auto" and (whole := self.sequences_per_step) % micro:
            fitting = [size for size in range(1, min(whole, 512) + 1) if whole % size == 0]
            near = min(fitting, key=lambda size: abs(size - micro))
            raise ValueError(
                f"training.batch_size of {whole} sequences is no whole number of micro-batches of {micro}; "
                f"training.micro_batch_size={near} or auto is"
            )

    def _check_quantization(self) -> None:
        quantize, precision, model = self.training.quantize, self.training.precision, self.model
        if isinstance(quantize, NoQuantization):
            return
        if not isinstance(model, TransformerShape):
            raise ValueError(
                f"training.quantize {quantize.name} is for trimtab's own transformers, and model.name is {model.name}"
            )
        if isinstance(precision, Bf16 | AutoPrecision) and precision.parameters == "bf16":
            raise ValueError(
                f"training.quantize {quantize.name} rounds fp32 weights, and training.precision.parameters is bf16"
            )
        with suppress(UnknownLengthError):  # epochs
            if steps_of(quantize.start, self.budget()) >= self.training.steps:
                raise ValueError(f"training.quantize.start {quantize.start} leaves no step in which to round")
        if isinstance(quantize, Int4Quantization):
            for key, size in (
                ("hidden_size", model.hidden_size),
                ("feed_forward_size", model.resolved_feed_forward_size),
            ):
                if size % quantize.group_size:
                    raise ValueError(
                        f"model.{key} {size} is no whole number of groups of training.quantize.group_size "
                        f"{quantize.group_size}"
                    )

    @property
    def sequences_per_step(self) -> int:
        """Sequences in one update."""
        training = self.training
        if isinstance(training.batch_size, str):
            return _tokens(training.batch_size) // self.data.sequence_length
        if training.batch_size is not None:
            return training.batch_size
        return training.accumulation * (1 if training.micro_batch_size == "auto" else training.micro_batch_size)

    @property
    def split(self) -> Split | None:
        """How a batch is divided; None where that is found by trying."""
        micro = self.training.micro_batch_size
        return None if micro == "auto" else Split(micro, self.sequences_per_step // micro)

    @property
    def largest_batch(self) -> int | None:
        """Sequences that an update never has more of, where something may raise them."""
        return self.batch_control.most if isinstance(self.batch_control, NoiseScaleBatch) else None

    @property
    def has_parts(self) -> bool:
        """Whether an update has, or can have at some step, several micro-batches."""
        growing = self.training.accumulation_schedule
        most = 1 if growing is None else max(growing.factors)
        return most > 1 or (self.sequences_per_step > 1 if self.split is None else self.split.accumulation > 1)

    @property
    def evaluation_batch_size(self) -> int:
        """Sequences that are judged at once, where evaluation.batch_size does not say."""
        if isinstance(self.task, Contrastive):
            return self.sequences_per_step  # a text is told from as many as in training
        return min(16, self.sequences_per_step) if self.split is None else self.split.micro_batch_size

    def _schedules(self) -> None:
        if isinstance(self.schedule, PiecewiseSchedule) and self.schedule.levels[0] == 0.0:
            raise ValueError("schedule.levels begins with 0: the first steps would train nothing")
        if self.dropout_schedule is not None:
            if why_not := regularizers(self)["dropout"]:
                raise ValueError(f"dropout_schedule has no effect: {why_not}")
            if isinstance(self.model, OutsideModel) and self.training.compile in ("on", "whole"):
                raise ValueError(
                    "dropout_schedule changes rates that a model from outside keeps in Python, and "
                    f"training.compile {self.training.compile} would compile it anew for each"
                )
        growing = self.training.accumulation_schedule
        stretches: dict[str, Section | None] = {
            "schedule": self.schedule,
            "decay_schedule": self.decay_schedule,
            "dropout_schedule": self.dropout_schedule,
            "optimizer_switch": self.optimizer_switch,
            "averaging": self.averaging,
            "training.quantize": self.training.quantize,
            "data.curriculum": self.data.curriculum,
            "training.accumulation_schedule": growing,
        }
        for key, one in self.named_optimizers.items():
            stretches |= {f"{key}.rates.schedules.{name}": section for name, section in one.rates.schedules.items()}
        if growing is not None and (found := [name for name, section in stretches.items() if counts_data(section)]):
            raise ValueError(
                f"{', '.join(found)} counts tokens or epochs, and with training.accumulation_schedule these are not "
                "always as many steps; give steps, or parts of the run"
            )

    def lies_after_the_end(self, span: int | float | str) -> bool:
        """Whether `span` is not over before the last step; False where that is known with the data alone."""
        try:
            return steps_asked(span, self.budget()) >= self.training.steps
        except UnknownLengthError:  # epochs, before the data is there
            return False

    @property
    def named_optimizers(self) -> dict[str, OptimizerConfig]:
        """The optimizers of the run by their keys, in the order in which they train."""
        switch = self.optimizer_switch
        return {"optimizer": self.optimizer} | ({} if switch is None else {"optimizer_switch.to": switch.to})

    @property
    def optimizers(self) -> tuple[OptimizerConfig, ...]:
        """The optimizers of the run, in the order in which they train."""
        return tuple(self.named_optimizers.values())

    @property
    def optimizer_stages(self) -> tuple[tuple[str, OptimizerConfig], ...]:
        """Those that train one after the other, with their keys: the same anew whenever parameters are unfrozen."""
        return tuple(self.named_optimizers.items()) * (1 + len(self.model.unfreeze))

    @property
    def variants(self) -> tuple[str, ...]:
        """The weights that evaluations judge, as their metrics name them: '' for plain ones, 'ema' for `…@ema`."""
        averaging = self.averaging
        if averaging.name == "none":
            return ("",)
        return (averaging.name,) if averaging.evaluate == "average" else ("", averaging.name)

    @property
    def selected(self) -> str:
        """Which of `variants` checkpoints are chosen by."""
        return self.checkpoint.metric.partition("@")[2]

    @property
    def save_every(self) -> int:
        """Steps between periodic checkpoints."""
        return self.checkpoint.every or self.evaluation.every

    @property
    def longest_sequence(self) -> int:
        """Positions of the longest sequence that the model meets."""
        second = self.task.target_length if isinstance(self.task, SequenceToSequence) else None
        return max(self.data.sequence_length, second or 0)

    @property
    def tokens_per_step(self) -> int:
        """Token positions in one update, where every sequence is full."""
        return self.sequences_per_step * self.data.sequence_length

    @property
    def rate_scale(self) -> float:
        """What is applied of optimizer.learning_rate, for this batch."""
        return self.rate_scale_of(self.optimizer)

    def rate_scale_of(self, optimizer: OptimizerConfig) -> float:
        """The same of one of the run's optimizers."""
        match optimizer.batch_scaling:
            case LinearScaling(reference_batch=reference):
                return self.sequences_per_step / reference
            case SquareRootScaling(reference_batch=reference):
                return math.sqrt(self.sequences_per_step / reference)
            case _:
                return 1.0

    @property
    def full_rate(self) -> float:
        """The full learning rate as applied, which the schedule scales."""
        return self.full_rate_of(self.optimizer)

    def full_rate_of(self, optimizer: OptimizerConfig) -> float:
        """That of one of the run's optimizers."""
        return optimizer.learning_rate * self.rate_scale_of(optimizer)

    def budget(self, facts: Mapping[str, Any] | None = None) -> Budget:
        """The length of the run. What `facts` tell is known once the data is prepared: `tokens_per_epoch`, and
        `tokens_per_step` of texts that are not packed."""
        facts = facts or {}
        is_packed = isinstance(self.task, CausalLanguageModeling | MaskedLanguageModeling)
        per_step = facts.get("tokens_per_step", self.tokens_per_step if is_packed else None)
        return Budget(self.training.steps, per_step, facts.get("tokens_per_epoch"))


def _tokens(batch_size: str) -> int:
    return int(batch_size.partition(" ")[0])
