"""From a configuration to an objective and a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from trimtab.config import (
    BinaryCrossEntropyConfig,
    Classification,
    CrossEntropyConfig,
    FocalConfig,
    HuberConfig,
    InfoNceConfig,
    ObjectiveConfig,
    QuantileConfig,
    SupervisedContrastiveConfig,
    TaskConfig,
    TokenClassification,
)
from trimtab.config.nearest import did_you_mean, nearest_names
from trimtab.errors import ConfigError
from trimtab.objective.binary import BinaryCrossEntropy
from trimtab.objective.contrastive import InfoNce, SupervisedContrastive
from trimtab.objective.cross_entropy import CrossEntropy
from trimtab.objective.focal import Focal
from trimtab.objective.regression import Regression
from trimtab.objective.tasks import (
    CausalLanguageModelingTask,
    ClassificationTask,
    ContrastiveTask,
    MaskedLanguageModelingTask,
    MultiLabelTask,
    RegressionTask,
    SequenceToSequenceTask,
)
from trimtab.signals import TargetFacts, Task

Objective = CrossEntropy | Focal | BinaryCrossEntropy | Regression | InfoNce | SupervisedContrastive


def build_objective(config: ObjectiveConfig, weights: Sequence[float] | None = None) -> Objective:
    """The objective that `config` describes; `weights` is one for each class, of labels for each positive one."""
    match config:
        case CrossEntropyConfig():
            return CrossEntropy(
                config.label_smoothing,
                config.spread,
                config.z_loss,
                fused=config.fused,
                chunks=config.chunks,
                class_weights=weights,
                mmce=config.mmce,
            )
        case FocalConfig():
            return Focal(config.gamma, weights)
        case BinaryCrossEntropyConfig():
            return BinaryCrossEntropy(config.label_smoothing, config.gamma, weights)
        case InfoNceConfig():
            return InfoNce(config.temperature, symmetric=config.symmetric)
        case SupervisedContrastiveConfig():
            return SupervisedContrastive(config.temperature)
        case HuberConfig():
            return Regression("huber", delta=config.delta)
        case QuantileConfig():
            return Regression("quantile", quantile=config.quantile)
        case _:
            return Regression(config.name)


def class_weights(task: TaskConfig, targets: TargetFacts) -> list[float] | None:
    """The weight of each class that `task` asks for, or None.

    Balanced: the training targets of every class weigh the same together, and those of all as much as before; of
    labels that are decided by themselves, both answers weigh the same.

    Raises:
        ConfigError: a weight for a class that there is not.
    """
    if not isinstance(task, Classification | TokenClassification) or task.class_weights == "none":
        return None
    asked, classes = task.class_weights, targets.classes
    if isinstance(asked, dict):
        for name in asked:
            if name not in classes:
                raise ConfigError(
                    f"task.class_weights: there is no class {name!r}. Classes: {', '.join(classes[:20])}",
                    hint=did_you_mean(nearest_names(name, classes)),
                )
        return [asked.get(name, 1.0) for name in classes]
    if isinstance(task, Classification) and task.multi_label:
        # With a label that all texts have, or none, there are no two answers to balance.
        return [(targets.total - count) / count if 0 < count < targets.total else 1.0 for count in targets.counts]
    occurring = sum(count > 0 for count in targets.counts)
    return [targets.total / (occurring * count) if count else 0.0 for count in targets.counts]


def build_task(
    config: TaskConfig,
    objective: Objective,
    targets: TargetFacts | None = None,
    token_bytes: NDArray[Any] | None = None,
) -> Task:
    """The task that `config` describes, scored by `objective`; `token_bytes` gives language models bits per byte."""
    targets = targets or TargetFacts()
    match config.name, objective:
        case "causal_lm", CrossEntropy() | Focal():
            return CausalLanguageModelingTask(objective, token_bytes)
        case "masked_lm", CrossEntropy() | Focal():
            return MaskedLanguageModelingTask(objective)
        case "seq2seq", CrossEntropy() | Focal():
            return SequenceToSequenceTask(objective)
        case ("classification" | "token_classification") as name, CrossEntropy() | Focal():
            return ClassificationTask(objective, len(targets.classes), name)
        case "classification", BinaryCrossEntropy():
            return MultiLabelTask(objective, len(targets.classes))
        case "contrastive", InfoNce() | SupervisedContrastive():
            return ContrastiveTask(objective)
        case "regression", Regression():
            return RegressionTask(objective, targets.mean, targets.deviation)
        case _:
            raise ConfigError(f"objective.name: {type(objective).__name__} does not fit task {config.name}")
