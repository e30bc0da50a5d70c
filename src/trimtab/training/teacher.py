"""The trained model that another one learns from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from trimtab.config import Config, CrossEntropyConfig, HuggingFaceConfig
from trimtab.data import PreparedData
from trimtab.errors import ConfigError
from trimtab.model import HuggingFaceModel, build_model
from trimtab.model.pretrained import fingerprint_of
from trimtab.objective import DistillationTask, logits_of
from trimtab.objective.tasks.parts import ClassTask
from trimtab.signals import Task, key, outputs_of
from trimtab.training.trained import open_trained

_WHERE = "objective.distillation.teacher"


@dataclass(frozen=True, slots=True)
class Teacher:
    """A model that is never trained here: in eval mode, without gradients, and in no checkpoint."""

    model: nn.Module
    fingerprint: str
    """SHA-256 of its weights, by which a run knows that it still is the same."""


def taught(task: Task, config: Config, data: PreparedData, device: torch.device) -> tuple[Task, Teacher | None]:
    """`task`, or one around it that learns from the teacher of `config`, too; and that teacher.

    Raises: ConfigError for a teacher of another task, tokenizer or classes, or one that cannot read as far; DataError,
    UsageError, CheckpointError for one that cannot be read.
    """
    objective = config.objective
    if not isinstance(objective, CrossEntropyConfig) or (chosen := objective.distillation) is None:
        return task, None
    assert isinstance(task, ClassTask)  # config/fit.py
    folder = Path(chosen.teacher).expanduser()
    is_folder = (folder / "config.json").is_file()
    model = _of_folder(chosen.teacher, config, data) if is_folder else _of_run(folder, config, data)
    model = model.to(device).eval().requires_grad_(False)
    size = outputs_of(config.task, data.targets, data.vocabulary_size).size
    _try(model, task, data, size, device)
    around = DistillationTask(task, model, size=size, temperature=chosen.temperature, weight=chosen.weight)
    return around, Teacher(model, fingerprint_of(dict(model.named_parameters()) | dict(model.named_buffers())))


def _of_run(path: Path, config: Config, data: PreparedData) -> nn.Module:
    trained = open_trained(path)
    theirs, ours = trained.config.task, config.task
    if (theirs.name, getattr(theirs, "multi_label", False)) != (ours.name, False):
        several = " with multi_label" if getattr(theirs, "multi_label", False) else ""
        raise ConfigError(f"{_WHERE}: its task is {theirs.name}{several}, and task.name is {ours.name}")
    if trained.tokenizer.fingerprint != data.tokenizer.fingerprint:
        raise ConfigError(
            f"{_WHERE}: it reads other tokens than this run. Received: {str(path)!r}",
            hint=f"data.tokenizer={{name: file, path: {path}/artifacts}} is the teacher's",
        )
    if trained.targets.classes != data.targets.classes:
        raise ConfigError(_other_classes(trained.targets.classes, data.targets.classes))
    if trained.config.longest_sequence < config.longest_sequence:
        raise ConfigError(
            f"{_WHERE}: it was trained on sequences of {trained.config.longest_sequence:,} tokens at most. "
            f"Received: {config.longest_sequence:,}",
            hint=f"data.sequence_length={trained.config.longest_sequence}",
        )
    return trained.model


def _of_folder(path: str, config: Config, data: PreparedData) -> nn.Module:
    if config.data.tokenizer.name in ("bpe", "bytes", "unigram"):
        raise ConfigError(
            f"{_WHERE}: data.tokenizer.name {config.data.tokenizer.name} makes other tokens than those that the folder "
            f"was trained on. Received: {path!r}",
            hint=f"data.tokenizer={{name: hugging_face, path: {path}}}",
        )
    own = _classes_of(Path(path).expanduser())
    if own and data.targets.classes and own != data.targets.classes:
        raise ConfigError(_other_classes(own, data.targets.classes))
    model = build_model(
        HuggingFaceConfig(path=path),
        vocabulary_size=data.vocabulary_size,
        sequence_length=config.longest_sequence,
        outputs=outputs_of(config.task, data.targets, data.vocabulary_size),
        seed=key(config.seed, 0, 0, "model"),
        special=data.tokenizer.special,
    )
    if isinstance(model, HuggingFaceModel) and model.new:
        raise ConfigError(
            f"{_WHERE}: the folder has no weights for {', '.join(model.new[:3])}, so it was not trained for task "
            f"{config.task.name}. Received: {path!r}"
        )
    return model


def _classes_of(folder: Path) -> tuple[str, ...]:
    """The names of its classes; none where it says but their numbers."""
    from transformers import PretrainedConfig

    named, _ = PretrainedConfig.get_config_dict(str(folder), local_files_only=True)
    names = tuple(name for _, name in sorted((int(place), name) for place, name in named.get("id2label", {}).items()))
    return () if names == tuple(f"LABEL_{place}" for place in range(len(names))) else names


def _other_classes(theirs: tuple[str, ...], ours: tuple[str, ...]) -> str:
    return (
        f"{_WHERE}: its classes are {', '.join(theirs[:20])}, and those of this run are {', '.join(ours[:20])}, which "
        "must be the same in the same order"
    )


@torch.no_grad()
def _try(model: nn.Module, task: Task, data: PreparedData, size: int, device: torch.device) -> None:
    """One text, to know before step 1 that it can be asked. Raises: ConfigError."""
    batch = data.training.batch(np.arange(1)).to(device)
    shape = tuple(logits_of(model(**task.inputs(batch))).shape)
    if shape[:-1] != tuple(batch.targets.shape) or shape[-1] < size:
        raise ConfigError(
            f"{_WHERE}: it says {shape[-1]:,} tokens or classes in {shape[:-1]}, and this run needs {size:,} in "
            f"{tuple(batch.targets.shape)}"
        )
