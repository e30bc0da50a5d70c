"""Options that cannot take effect: one literal table of which, beside what, and why.

Whether somebody asked for one is told by the origin of its value, never by the value: a preset's does no harm, and
the user's is an error even when it is the default, unless a higher layer switched it off.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any, Final

from trimtab.config.adaptive import AdaptiveLoggingConfig
from trimtab.config.alerts import EmailConfig, WebhookConfig
from trimtab.config.averaging import EmaConfig
from trimtab.config.base import UnknownLengthError, is_nothing, steps_of
from trimtab.config.evaluation import is_calibrated, only_folders
from trimtab.config.idle import Idle
from trimtab.config.idle_model import IDLE_OF_MODELS
from trimtab.config.keys import flatten
from trimtab.config.model import TransformerShape
from trimtab.config.objective import CrossEntropyConfig
from trimtab.config.optimizer import SgdConfig
from trimtab.config.presets import list_presets
from trimtab.config.recovery import SkipSpikes
from trimtab.config.run import Config
from trimtab.config.schedule import OneCycleSchedule, WsdSchedule
from trimtab.config.task import Classification, Contrastive, TokenClassification
from trimtab.config.training import Fp16


def _is_no_step(span: int | float | str, config: Config, most: int = 0) -> bool:
    """Whether `span` is at most `most` steps."""
    try:
        return steps_of(span, config.budget()) <= most
    except UnknownLengthError:  # epochs
        return is_nothing(span)


_DRAWS: Final = ("evaluation.samples.temperature", "evaluation.samples.top_k", "evaluation.samples.seeds")
_OPTIMIZERS: Final = ("optimizer", "optimizer_switch.to")

IDLE: tuple[Idle, ...] = (
    *IDLE_OF_MODELS,
    Idle(
        ("objective.spread",),
        "objective.label_smoothing",
        lambda config: isinstance(config.objective, CrossEntropyConfig) and config.objective.label_smoothing == 0.0,
        "it says how label smoothing is spread, and objective.label_smoothing is 0",
        "set objective.label_smoothing above 0",
    ),
    Idle(
        ("objective.chunks",),
        "objective.fused",
        lambda config: isinstance(config.objective, CrossEntropyConfig) and config.objective.fused == "off",
        "it divides the fused head and loss, and objective.fused is off",
        "leave out objective.fused",
    ),
    Idle(
        ("objective.chunks",),
        "training.device",
        lambda config: (
            isinstance(config.objective, CrossEntropyConfig)
            and config.objective.fused == "auto"
            and config.training.device == "cpu"
        ),
        "it divides the fused head and loss, which objective.fused auto takes on CUDA, and training.device is cpu",
        "set objective.fused=on",
    ),
    *(
        Idle(
            (key,),
            switch,
            # auto and off say what is so anyway.
            lambda config, key=key, cannot=cannot: (  # type: ignore[misc]
                isinstance(config.objective, CrossEntropyConfig)
                and (key == "objective.chunks" or config.objective.fused == "on")
                and cannot(config)
            ),
            f"head and loss cannot be fused: {reason}",
            remedy,
        )
        for key in ("objective.fused", "objective.chunks")
        for switch, cannot, reason, remedy in (
            (
                "objective.distillation",
                lambda config: isinstance(config.objective, CrossEntropyConfig) and bool(config.objective.distillation),
                "with objective.distillation the logits are compared with those of a teacher",
                "leave out objective.distillation",
            ),
            (
                "task.name",
                lambda config: isinstance(config.task, Classification | TokenClassification),
                "with this task.name the head has a bias",
                "set another task.name",
            ),
            (
                "training.precision.name",
                lambda config: config.training.precision.name == "fp16",
                "their gradient would leave the range of training.precision.name fp16",
                "set training.precision.name=bf16",
            ),
        )
    ),
    Idle(
        ("embedding.cutout.kind",),
        "embedding.cutout.rate",
        lambda config: config.embedding.cutout.rate == 0.0,
        "nothing is cut out, as embedding.cutout.rate is 0",
        "set embedding.cutout.rate above 0",
    ),
    Idle(
        ("task.bucketing",),
        "data.shuffle",
        lambda config: not config.data.shuffle,
        "it puts shuffled texts together by length, and data.shuffle is false",
        "set data.shuffle=true",
    ),
    Idle(
        ("task.bucketing",),
        "data.source.name",
        lambda config: config.data.source.name == "stream",
        "rows of a stream come as they come, as data.source.name is stream",
        "set another data.source",
    ),
    *(
        Idle(
            (f"{key}.nesterov",),
            f"{key}.momentum",
            # false says what is so anyway.
            lambda config, key=key: (  # type: ignore[misc]
                isinstance(one := config.named_optimizers.get(key), SgdConfig) and one.nesterov and one.momentum == 0.0
            ),
            f"it looks ahead by a step of the momentum, and {key}.momentum is 0",
            f"set {key}.momentum above 0",
        )
        for key in _OPTIMIZERS
    ),
    Idle(
        ("schedule.start",),
        "schedule.warmup",
        # A warm-up of one step has the full rate in it.
        lambda config: isinstance(config.schedule, OneCycleSchedule) and _is_no_step(config.schedule.warmup, config, 1),
        "the rate does not rise, as schedule.warmup is at most 1 step",
        "set schedule.warmup to more",
    ),
    Idle(
        ("gradients.max_skipped",),
        "gradients.skip_non_finite",
        lambda config: not (config.gradients.skip_non_finite or isinstance(config.recovery.spikes, SkipSpikes)),
        "it counts skipped steps, and gradients.skip_non_finite is false",
        "set gradients.skip_non_finite=true",
    ),
    Idle(
        ("gradients.noise.power",),
        "gradients.noise.scale",
        lambda config: config.gradients.noise.scale == 0.0,
        "there is no noise, as gradients.noise.scale is 0",
        "set gradients.noise.scale above 0",
    ),
    Idle(
        ("recovery.rollback.budget", "recovery.rollback.margin", "recovery.rollback.factor"),
        "recovery.spikes.name",
        lambda config: not config.recovery.goes_back,
        "nothing rolls back, as recovery.spikes.name and recovery.non_finite do not say so",
        "set recovery.spikes.name=rollback",
    ),
    Idle(
        ("recovery.rollback.slow_steps",),
        "recovery.rollback.factor",
        lambda config: not config.recovery.goes_back or config.recovery.rollback.factor == 1.0,
        "the learning rate is not lowered after a rollback, as recovery.rollback.factor is 1",
        "set recovery.rollback.factor below 1",
    ),
    Idle(
        ("checkpoint.min_improvement",),
        "checkpoint.keep_best",
        # 0 says what is so anyway.
        lambda config: config.checkpoint.min_improvement > 0 and config.checkpoint.keep_best == 0,
        "nothing is saved for being among the best, as checkpoint.keep_best is 0",
        "set checkpoint.keep_best above 0",
    ),
    Idle(
        ("logging.noise_scale.memory",),
        "logging.noise_scale.every",
        lambda config: config.logging.noise_scale.every == 0,
        "the gradient noise scale is not measured, as logging.noise_scale.every is 0",
        "set logging.noise_scale.every above 0",
    ),
    Idle(
        ("logging.noise_scale.every", "logging.noise_scale.memory"),
        "training.accumulation",
        # 0 says what is so anyway.
        lambda config: config.logging.noise_scale.every > 0 and not config.has_parts,
        "it compares the micro-batches of a step, and no step has several: training.accumulation is 1",
        "set training.accumulation=2 and halve training.micro_batch_size: the batch stays the same",
    ),
    Idle(
        # Whatever the number of steps: a run's own configuration holds these, and is run again for fewer.
        ("logging.examine.which", "logging.examine.sequences"),
        "logging.examine.at_evaluations",
        lambda config: config.logging.examine.every == 0 and not config.logging.examine.at_evaluations,
        "nothing is examined, as logging.examine.every is 0 and logging.examine.at_evaluations false",
        "set logging.examine.every above 0, or logging.examine.at_evaluations=true",
    ),
    Idle(
        ("logging.capture.layers", "logging.capture.values", "logging.capture.megabytes"),
        "logging.examine.every",
        lambda config: (
            bool(config.logging.capture.layers) and not config.logging.examine.is_due_within(config.training.steps)
        ),
        "modules are captured at examinations, and no step of this run is examined",
        "set logging.examine.every to at most training.steps",
    ),
    Idle(
        ("logging.capture.values", "logging.capture.megabytes"),
        "logging.capture.layers",
        lambda config: not config.logging.capture.layers,
        "nothing is captured, as logging.capture.layers is empty",
        "name modules in logging.capture.layers",
    ),
    Idle(
        ("logging.examine.apart",),
        "logging.examine.at_evaluations",
        lambda config: not config.logging.examine.at_evaluations,
        "it is about examinations at evaluations, and logging.examine.at_evaluations is false",
        "set logging.examine.at_evaluations=true",
    ),
    Idle(
        ("training.accumulation",),
        "training.batch_size",
        lambda config: config.training.batch_size is not None,
        "it follows from training.batch_size and training.micro_batch_size",
        "leave out training.batch_size",
    ),
    Idle(
        ("training.memory_budget_bytes",),
        "training.micro_batch_size",
        # null says what is so anyway.
        lambda config: (
            config.training.memory_budget_bytes is not None
            and config.training.micro_batch_size != "auto"
            and config.training.recompute != "auto"
        ),
        "it bounds the search for the largest micro-batch, and training.micro_batch_size is given",
        "set training.micro_batch_size=auto",
    ),
    Idle(
        ("training.precision.growth_every",),
        "training.precision.scaling",
        lambda config: isinstance(config.training.precision, Fp16) and config.training.precision.scaling == "static",
        "the loss scale stays, as training.precision.scaling is static",
        "set training.precision.scaling=dynamic",
    ),
    *(
        Idle(
            tuple(f"alerts.{place}.{name}" for name, field in fields.items() if not field.is_required()),
            "alerts.rules",
            lambda config, place=place: not config.alerts.sends_to(place),  # type: ignore[misc]
            f"no rule in alerts.rules goes to {place}",
            f"name {place} in a rule's `to`",
        )
        for place, fields in (("webhook", WebhookConfig.model_fields), ("email", EmailConfig.model_fields))
    ),
    Idle(
        ("data.duplicates.threshold",),
        "data.duplicates.near",
        lambda config: config.data.duplicates.near == "off",
        "nearly equal texts are not looked for, as data.duplicates.near is off",
        "set data.duplicates.near=report",
    ),
    Idle(
        ("data.max_bad",),
        "data.on_bad",
        lambda config: config.data.on_bad == "stop",
        "nothing that cannot be used is passed over, as data.on_bad is stop",
        "set data.on_bad=skip",
    ),
    Idle(
        ("data.validation_fraction",),
        "data.validation_source",
        lambda config: config.data.validation_source is not None,
        "it holds out a part of the source, and there is a data.validation_source",
        "leave out data.validation_source",
    ),
    Idle(
        ("evaluation.samples.prompts", *_DRAWS),
        "evaluation.samples.max_tokens",
        lambda config: config.evaluation.samples.max_tokens == 0,
        "no samples are written, as evaluation.samples.max_tokens is 0",
        "set evaluation.samples.max_tokens above 0",
    ),
    Idle(
        ("evaluation.samples.max_tokens", *_DRAWS),
        "evaluation.samples.prompts",
        lambda config: not config.evaluation.samples.prompts,
        "no samples are written, as evaluation.samples.prompts is empty",
        'give evaluation.samples.prompts; "" starts a document',
    ),
    Idle(
        ("evaluation.samples.top_k", "evaluation.samples.seeds"),
        "evaluation.samples.temperature",
        lambda config: config.evaluation.samples.temperature == 0.0,
        "the most probable token is taken, as evaluation.samples.temperature is 0",
        "set evaluation.samples.temperature above 0",
    ),
    Idle(
        ("evaluation.stride",),
        "task.name",
        # null says what is so anyway.
        lambda config: config.evaluation.stride is not None and config.task.name != "causal_lm",
        "sequences overlap for next-token prediction, and task.name is another",
        "set another task.name",
    ),
    Idle(
        ("evaluation.decoded",),
        "task.name",
        lambda config: config.evaluation.decoded > 0 and config.task.name != "seq2seq",
        "answers are written with task.name seq2seq, and it is another",
        "set task.name=seq2seq",
    ),
    Idle(
        ("evaluation.calibration",),
        "task.name",
        lambda config: config.evaluation.calibration != "none" and not is_calibrated(config.task),
        "a temperature is for answers that are classes, labels or tokens, and with this task there is none",
        "set another task.name",
    ),
    Idle(
        ("task.label",),
        "data.source.name",
        lambda config: isinstance(config.task, Classification) and only_folders(config),
        "with data.source.name folder the class is the name of a folder",
        "set another data.source",
    ),
    Idle(
        ("evaluation.samples.prompts", *_DRAWS),
        "task.name",
        lambda config: config.task.name not in ("causal_lm", "seq2seq"),
        "samples are what a model writes, and with this task.name it writes nothing",
        "set another task.name",
    ),
    Idle(
        ("evaluation.samples.max_tokens",),
        "task.name",
        # 0 says what is so anyway.
        lambda config: config.task.name not in ("causal_lm", "seq2seq") and config.evaluation.samples.max_tokens > 0,
        "samples are what a model writes, and with this task.name it writes nothing",
        "set another task.name",
    ),
    Idle(
        ("evaluation.samples.prompts", *_DRAWS),
        "task.name",
        lambda config: config.task.name == "seq2seq",
        "with task.name seq2seq samples are the most probable answers to texts of the validation set",
        "set another task.name",
    ),
    Idle(
        ("task.separator",),
        "task.multi_label",
        lambda config: isinstance(config.task, Classification) and not config.task.multi_label,
        "it stands between several labels, and task.multi_label is false",
        "set task.multi_label=true",
    ),
    Idle(
        ("task.second",),
        "task.label",
        lambda config: isinstance(config.task, Contrastive) and not config.task.has_pairs,
        "it names the second text of a pair, and with task.label texts of one class belong together",
        "leave out task.label",
    ),
    Idle(
        ("model.tied_embeddings",),
        "task.name",
        lambda config: (
            config.model.name in ("encoder", "decoder") and config.task.name not in ("masked_lm", "causal_lm")
        ),
        "with this task.name the head gives no tokens, and has nothing in common with the embedding",
        "set another task.name",
    ),
    Idle(
        ("model.pooling",),
        "task.name",
        lambda config: config.task.name in ("causal_lm", "masked_lm", "token_classification"),
        "it makes one vector of a text, and this task.name asks about each token",
        "set another task.name",
    ),
    *(
        Idle(
            tuple(f"{key}.decay.{one}" for one in ("biases", "norms", "embeddings", "layers", "factors", "target")),
            f"{key}.weight_decay",
            lambda config, key=key: (  # type: ignore[misc]
                (one := config.named_optimizers.get(key)) is not None and one.weight_decay == 0.0
            ),
            f"it says what weight decay acts on, and {key}.weight_decay is 0",
            f"set {key}.weight_decay above 0",
        )
        for key in _OPTIMIZERS
    ),
    Idle(
        ("optimizer_switch.metric",),
        "optimizer_switch.patience",
        lambda config: config.optimizer_switch is not None and config.optimizer_switch.patience is None,
        "nothing is waited for, as optimizer_switch.patience is null",
        "give optimizer_switch.patience",
    ),
    Idle(
        ("optimizer.decay.biases", "optimizer_switch.to.decay.biases"),
        "model.bias",
        lambda config: isinstance(config.model, TransformerShape) and not config.model.bias,
        "the model has no biases, as model.bias is false",
        "set model.bias=true",
    ),
    Idle(
        ("averaging.decay",),
        "averaging.half_life",
        lambda config: isinstance(config.averaging, EmaConfig) and config.averaging.half_life is not None,
        "the decay follows from averaging.half_life",
        "leave out averaging.half_life",
    ),
    Idle(
        # Not its name: without that another variant would be read from what is written out.
        tuple(f"logging.adaptive.{key}" for key in AdaptiveLoggingConfig.model_fields if key != "name"),
        "logging.layers",
        lambda config: isinstance(config.logging.adaptive, AdaptiveLoggingConfig) and not config.logging.layers,
        "it says when the values of layers are written, and logging.layers is false",
        "set logging.layers=true",
    ),
    Idle(
        ("schedule.shape", "schedule.floor"),
        "schedule.decay",
        lambda config: isinstance(config.schedule, WsdSchedule) and _is_no_step(config.schedule.decay, config),
        "the rate never falls, as schedule.decay is 0 steps",
        "set schedule.decay above 0",
    ),
    Idle(
        ("doctor.watch",),
        "doctor.live",
        lambda config: not config.doctor.live,
        "the doctor is not asked during the run, as doctor.live is false",
        "leave out doctor.live",
    ),
)


def idle_keys(config: Config) -> dict[str, Idle]:
    """The keys of `config` that change nothing in it, each with the first reason in the table."""
    found: dict[str, Idle] = {}
    present = flatten(config)
    for idle in IDLE:
        if idle.when(config):
            found |= {key: idle for key in idle.keys if key in present and key not in found}
    return found


def asked_for_nothing(config: Config, origins: Mapping[str, str]) -> dict[str, Idle]:
    """The keys without effect that the user set, in the layer of what switches them off or in a higher one."""
    return {
        key: idle
        for key, idle in idle_keys(config).items()
        if (layer := _layer(origins[key])) > _PRESET and layer >= _layer_of(idle.switch, origins)
    }


_PRESET, _FILE, _ENVIRONMENT, _OVERRIDE = 1, 2, 3, 4


def _layer(origin: str) -> int:
    if origin == "default":
        return 0
    if origin in {f"preset {name}" for name in list_presets()}:
        return _PRESET
    if origin.startswith("environment "):
        return _ENVIRONMENT
    return _OVERRIDE if origin == "override" else _FILE


def _layer_of(switch: str, origins: Mapping[str, str]) -> int:
    return max(_layer(origin) for key, origin in origins.items() if f"{key}.".startswith(f"{switch}."))


def effective(config: Config) -> Mapping[str, Any]:
    """Every value by its dotted key; one without effect is the default, so that it makes no difference."""
    return flatten(config) | {key: _default(config, key) for key in idle_keys(config)}


def _default(config: Config, key: str) -> Any:
    *sections, name = key.split(".")
    section = reduce(getattr, sections, config)
    return type(section).model_fields[name].get_default(call_default_factory=True)
