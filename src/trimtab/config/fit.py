"""Which models, objectives and sources go with a task: one literal table, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trimtab.config.control import PatienceStopping, PlateauControl
from trimtab.config.model import HuggingFaceConfig, TransformerShape
from trimtab.config.objective import CrossEntropyConfig
from trimtab.config.task import Contrastive, TaskConfig
from trimtab.config.unfreezing import PlateauUnfreezing

if TYPE_CHECKING:
    from trimtab.config.run import Config

_TEXT: Final = ("embedded", "text", "jsonl", "parquet", "csv", "dataset")
_ROWS: Final = ("jsonl", "parquet", "csv", "dataset")
_STREAMED: Final = (*_ROWS, "stream")
_CLASSED: Final = (*_ROWS, "folder", "stream")
_LEADING: Final = 3
_OF_TEXTS: Final = ("encoder", "decoder", "mlp", "cnn", "hugging_face", "custom")
_CLASSES: Final = ("cross_entropy", "focal")
_NUMBERS: Final = ("mse", "rmse", "mae", "huber", "quantile", "log_cosh")
_OF_TOKENS: Final = ("loss", "accuracy", "perplexity")
_OF_NUMBERS: Final = ("loss", "rmse", "r2", "mae", "pearson")
_OF_LABELS: Final = ("micro_f1", "macro_f1", "loss", "exact_match", "accuracy")
_OF_VECTORS: Final = ("loss", "accuracy", "reciprocal_rank", "alignment", "uniformity")
OVERLAPS: Final = ("rouge_1", "rouge_2", "rouge_l", "bleu", "chrf")
"""Of texts that are written out: evaluation.decoded."""
_OF_CLASSES: Final = ("accuracy", "macro_f1", "loss", "f1", "mcc", "calibration_error")
_OF_TAGS: Final = ("macro_f1", "accuracy", "loss", "f1", "mcc", "calibration_error")

_ERROR_OF_CLASSES: Final = (
    ", and the gradient of an error of probabilities vanishes where an answer is sure and wrong (Golik et al. 2013, "
    "Interspeech)"
)
_SHARE_OF_NUMBERS: Final = (
    ": it is the share of answers that are exactly right, and of numbers hardly one is (rules of thumb)"
)


@dataclass(frozen=True, slots=True)
class Fit:
    """What a task is done with; the first of each is the usual one."""

    models: tuple[str, ...]
    objectives: tuple[str, ...]
    sources: tuple[str, ...]
    metrics: tuple[str, ...]
    """Of `validation/`, in the order in which one looks at them; the first chooses the best checkpoint."""
    why: str

    @property
    def leading(self) -> tuple[str, ...]:
        """The metrics to look at first."""
        return self.metrics[:_LEADING]


FITS: dict[str, Fit] = {
    "causal_lm": Fit(
        ("decoder", "hugging_face", "custom"),
        _CLASSES,
        (*_TEXT, "stream"),
        ("loss", "bits_per_byte", "accuracy", "perplexity"),
        "each token is predicted from those before it",
    ),
    "masked_lm": Fit(
        ("encoder", "hugging_face", "custom"),
        _CLASSES,
        (*_TEXT, "stream"),
        _OF_TOKENS,
        "hidden tokens are predicted from both sides",
    ),
    "classification": Fit(_OF_TEXTS, _CLASSES, _CLASSED, _OF_CLASSES, "a text has one class"),
    "multi_label": Fit(_OF_TEXTS, ("binary_cross_entropy",), _STREAMED, _OF_LABELS, "each label is decided by itself"),
    "token_classification": Fit(
        ("encoder", "hugging_face", "custom"), _CLASSES, _STREAMED, _OF_TAGS, "a word has one class"
    ),
    "regression": Fit(_OF_TEXTS, _NUMBERS, _STREAMED, _OF_NUMBERS, "a text has a number"),
    "seq2seq": Fit(
        ("encoder_decoder", "hugging_face", "custom"),
        _CLASSES,
        _ROWS,
        (*_OF_TOKENS, *OVERLAPS),
        "a second text is written after reading a first",
    ),
    "contrastive": Fit(
        ("encoder", "hugging_face"), ("info_nce",), _ROWS, _OF_VECTORS, "a text is told from the partners of others"
    ),
    "contrastive_classes": Fit(
        ("encoder", "hugging_face"),
        ("supervised_contrastive",),
        _ROWS,
        _OF_VECTORS,
        "texts of one class are told from others",
    ),
}


def fit_of(config: Config) -> Fit:
    """What goes with the task of `config`."""
    return FITS[kind_of(config.task)]


def kind_of(task: TaskConfig | Mapping[str, Any]) -> str:
    """The entry of `FITS` for a task, or for what is written of one."""
    said = task if isinstance(task, Mapping) else task.model_dump()
    name = str(said.get("name", "causal_lm"))
    if name == "classification" and said.get("multi_label"):
        return "multi_label"
    return "contrastive_classes" if name == "contrastive" and said.get("label") is not None else name


def leading_curves(config: Config) -> list[str]:
    """The metrics of evaluations to look at first, the one that chooses the best checkpoint before all others."""
    _, at, variant = config.checkpoint.metric.partition("@")
    names = [f"validation/{name}{at}{variant}" for name in fit_of(config).leading]
    return list(dict.fromkeys([config.checkpoint.metric, *names]))


def over_whole_batch(config: Config) -> str:
    """What in the objective of `config` is no sum over micro-batches; "" where all is one."""
    objective = config.objective
    if isinstance(objective, CrossEntropyConfig) and objective.mmce > 0:
        return "objective.mmce"
    return "objective.name rmse" if objective.name == "rmse" else ""


def misfits(config: Config) -> Iterator[str]:
    """Each choice of `config` that does not go with its task, in words."""
    fit, task = fit_of(config), config.task
    name = f"task {task.name}" + (" with multi_label" if fit is FITS["multi_label"] else "")
    name += " with label" if fit is FITS["contrastive_classes"] else ""
    stopping, known = config.stopping, {name for one in FITS.values() for name in one.metrics}
    metrics = {"checkpoint.metric": config.checkpoint.metric}
    if isinstance(stopping, PatienceStopping):
        metrics["stopping.metric"] = stopping.metric
    if config.optimizer_switch is not None and config.optimizer_switch.patience is not None:
        metrics["optimizer_switch.metric"] = config.optimizer_switch.metric
    if isinstance(config.control.learning_rate, PlateauControl):
        metrics["control.learning_rate.metric"] = config.control.learning_rate.metric
    if isinstance(config.control.unfreezing, PlateauUnfreezing):
        metrics["control.unfreezing.metric"] = config.control.unfreezing.metric
    named: dict[str, list[str]] = {}
    for key, metric in metrics.items():  # one may follow from another
        named.setdefault(metric, []).append(key)
    for metric, keys in named.items():
        key = ", ".join(keys)
        # A metric that no task has is somebody's own.
        base, at, variant = metric.partition("@")
        plain = base.removeprefix("validation/")
        name_of_set, slash, last = plain.rpartition("/")
        if plain != base and slash and last in known and name_of_set not in config.evaluation.sets:
            sets = ", ".join(config.evaluation.sets) or "none"
            yield f"{key} {metric} is of a set that evaluation.sets does not have: {name_of_set}; sets: {sets}"
        elif plain != base and plain in known and plain not in fit.metrics:
            measured = ", ".join(f"validation/{one}{at}{variant}" for one in fit.metrics)
            why = _SHARE_OF_NUMBERS if plain == "accuracy" and fit.objectives is _NUMBERS else ""
            yield f"{key} {metric} is not measured with {name}{why}. Fitting: {measured}"
        elif plain in OVERLAPS and not config.evaluation.decoded:
            yield f"{key} {metric} is of texts that are written, and evaluation.decoded is 0"
        elif variant not in config.variants:
            averaged = f"averaging.name {config.averaging.name}"
            if config.averaging.name != "none" and config.averaging.evaluate == "average":
                averaged += " and averaging.evaluate average"
            others = ", ".join(base + (f"@{one}" if one else "") for one in config.variants)
            yield f"{key} {metric} is not measured with {averaged}. Fitting: {others}"
    for key, one in config.named_optimizers.items():
        if one.name == "sophia" and fit.objectives is not _CLASSES:
            classes = ", ".join(task for task, other in FITS.items() if other.objectives is _CLASSES)
            why = f"draws a class for each target from the model, and {name} has other targets"
            yield f"{key}.name sophia {why}. Fitting: {classes}"
    objective = config.objective
    calibrates = isinstance(objective, CrossEntropyConfig) and objective.mmce > 0
    if calibrates and "perplexity" in fit.metrics:
        yield f"objective.mmce compares all targets of a batch with each other, and {name} has too many. Fitting: 0"
    if (what := over_whole_batch(config)) and config.has_parts and config.procedure.name != "gradient_cache":
        yield (
            f"{what} is no sum over micro-batches, and a step has several. Fitting: training.accumulation 1, or "
            "procedure.name gradient_cache"
        )
    if isinstance(task, Contrastive):
        yield from _beside_contrast(config)
    recompute, model = config.training.recompute, config.model.name
    if recompute == "selective" and isinstance(config.model, HuggingFaceConfig):
        yield "training.recompute selective is for trimtab's own transformers, not for hugging_face. Fitting: full"
    elif recompute != "none" and not isinstance(config.model, TransformerShape | HuggingFaceConfig):
        yield f"training.recompute {recompute} is for transformers, and model.name is {model}. Fitting: none"
    if recompute != "none" and config.training.precision.name == "fp8":
        yield f"training.recompute {recompute} does not go with training.precision.name fp8. Fitting: none"
    sources = dict(config.data.plain_sources)
    sources |= {f"evaluation.sets.{name}": source for name, source in config.evaluation.sets.items()}
    for key, chosen, fitting in (
        ("model.name", config.model.name, fit.models),
        ("objective.name", config.objective.name, fit.objectives),
        *((f"{key}.name", source.name, fit.sources) for key, source in sources.items()),
    ):
        if chosen not in fitting:
            of_classes = fit.objectives[0].endswith("cross_entropy")
            why = _ERROR_OF_CLASSES if of_classes and chosen in _NUMBERS else ""
            yield f"{key} {chosen} does not fit {name}: {fit.why}{why}. Fitting: {', '.join(fitting)}"


def _beside_contrast(config: Config) -> Iterator[str]:
    """What asks each micro-batch for a gradient of its own, which a loss over the whole batch has not."""
    if config.logging.noise_scale.every:
        yield (
            "logging.noise_scale compares the gradients of micro-batches, and task contrastive compares their texts "
            "with each other. Fitting: logging.noise_scale.every 0"
        )
    if config.training.precision.name == "fp8" and config.has_parts:
        yield (
            "training.precision fp8 scales by what one pass of a micro-batch finds, and task contrastive makes two "
            "where a step has several. Fitting: training.accumulation 1, or bf16"
        )


def f1_of_many(config: Config, num_classes: int) -> Iterator[str]:
    """Each setting that waits for `validation/f1`, in words, where there are not two classes; they are known late."""
    if num_classes == 2 or "f1" not in fit_of(config).metrics:
        return
    for key, metric in (
        ("checkpoint.metric", config.checkpoint.metric),
        ("stopping.metric", getattr(config.stopping, "metric", None)),
        ("optimizer_switch.metric", getattr(config.optimizer_switch, "metric", None)),
        ("control.learning_rate.metric", getattr(config.control.learning_rate, "metric", None)),
        ("control.unfreezing.metric", getattr(config.control.unfreezing, "metric", None)),
    ):
        if metric is not None and metric.partition("@")[0] == "validation/f1":
            yield f"{key} {metric} is of two classes, and here are {num_classes}. Fitting: validation/macro_f1"
