"""The settings of a loop that is not ours, as facts: under our names where a table knows them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from trimtab.config.secrets import hidden
from trimtab.errors import UsageError
from trimtab.runs.importers.names import words

_SETTINGS: Final[Mapping[str, str]] = {
    "learning_rate": "optimizer.learning_rate",
    "lr": "optimizer.learning_rate",
    "max_lr": "optimizer.learning_rate",
    "weight_decay": "optimizer.weight_decay",
    "wd": "optimizer.weight_decay",
    "label_smoothing": "objective.label_smoothing",
    "grad_clip": "gradients.clip.threshold",
    "clip_grad": "gradients.clip.threshold",
    "clip_grad_norm": "gradients.clip.threshold",
    "max_grad_norm": "gradients.clip.threshold",
    "gradient_clip_val": "gradients.clip.threshold",
    "gradient_accumulation_steps": "training.accumulation",
    "grad_accum_steps": "training.accumulation",
    "accumulation_steps": "training.accumulation",
    "accumulation": "training.accumulation",
    "seed": "seed",
}
_FACTS: Final[Mapping[str, str]] = {
    "optimizer": "optimizer",
    "epochs": "epochs",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "batch_size": "batch_size",
    "num_classes": "num_classes",
    "num_labels": "num_classes",
    "task": "task",
}
_LENGTHS: Final = ("total_steps", "max_steps", "num_steps", "num_training_steps", "training_steps", "max_iters")


def as_mapping(config: Any) -> dict[str, Any]:
    """A mapping, an argparse namespace, a dataclass or a pydantic model as a dictionary. Raises: UsageError."""
    if config is None:
        return {}
    if isinstance(config, Mapping):
        return {str(name): value for name, value in config.items()}
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return dataclasses.asdict(config)
    if hasattr(config, "model_dump"):
        return dict(config.model_dump())
    if hasattr(config, "__dict__"):
        return dict(vars(config))
    raise UsageError(
        f"config is a mapping, a namespace, a dataclass or a pydantic model. Received: {type(config).__name__}"
    )


def total_steps_in(config: Mapping[str, Any]) -> int:
    """The planned steps, where the settings tell them; else 0."""
    for name, value in _flat(config).items():
        if words(name) in _LENGTHS and isinstance(value, int) and value > 0:
            return value
    return 0


def facts_of_settings(config: Mapping[str, Any], total_steps: int) -> dict[str, Any]:
    """What facts.json says of such a run; secrets are cut."""
    shown = hidden(config)
    facts: dict[str, Any] = {"settings": shown, "identity": {}}
    if total_steps:
        facts["planned_steps"] = total_steps
    for name, value in _flat(shown).items():
        plain = words(name)
        if plain in _SETTINGS and isinstance(value, int | float) and not isinstance(value, bool):
            facts["identity"].setdefault(f"config.{_SETTINGS[plain]}", value)
        elif plain in _FACTS and isinstance(value, int | float | str) and not isinstance(value, bool):
            facts.setdefault(_FACTS[plain], value)
        elif plain == "vocab_size" and isinstance(value, int):
            facts.setdefault("tokenizer", {"vocabulary_size": value})
    return facts


def _flat(config: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """By the innermost name; outer ones go before."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if not isinstance(value, Mapping):
            found[str(name)] = value
    for value in config.values():
        if isinstance(value, Mapping) and depth < 8:
            found = _flat(value, depth + 1) | found
    return found
