"""What of the fast ways goes with a model from outside, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from trimtab.config import Config, CrossEntropyConfig, ObjectiveConfig, RowTask
from trimtab.errors import ConfigError
from trimtab.model import HuggingFaceModel


def compiles(model: nn.Module, config: Config) -> bool:
    """Whether compiling `model`, which is not ours, may be tried without being asked for.

    A schedule of dropout changes rates that transformers keeps in Python, for each of which it would compile anew.
    """
    return isinstance(model, HuggingFaceModel) and config.dropout_schedule is None


def refuse_fusing(objective: ObjectiveConfig, model: nn.Module) -> None:
    """Raises: ConfigError where head and loss are to be one operation, and a model of transformers keeps its head."""
    asked = isinstance(objective, CrossEntropyConfig) and objective.fused == "on"
    if asked and isinstance(model, HuggingFaceModel) and model.scale is None:
        raise ConfigError(
            f"objective.fused: head and loss of {model.kind} cannot be one operation: {model.why_whole}. "
            "Received: 'on'",
            hint="leave out objective.fused",
        )


def what_applies(model: nn.Module, config: Config, plan: Mapping[str, Any]) -> list[str]:
    """One line on a model of transformers: which of the fast ways it goes, and why not the others."""
    if not isinstance(model, HuggingFaceModel):
        return []
    objective = config.objective
    if model.scale is None:
        fused = f"head and loss apart: {model.why_whole}"
    elif not isinstance(objective, CrossEntropyConfig) or objective.fused == "off" or objective.distillation:
        fused = "head and loss apart, as the objective is"
    elif objective.fused == "on":
        fused = "head and loss in one"
    else:
        fused = "head and loss in one" if plan["device"].startswith("cuda") else "head and loss apart, as on every CPU"
    parts = [fused]
    for name, done in (("compile", "compiled"), ("capture", "captured")):
        choice = plan[name]
        reason = choice["reason"]
        if name == "compile" and isinstance(config.task, RowTask) and config.task.padding != "full":
            reason = "task.padding=full gives batches one shape"
        parts.append(f"{'' if choice['chosen'] else 'not '}{done} ({reason})")
    lines = [f"{model.kind} of transformers: {'; '.join(parts)}"]
    if model.adapted:
        lines.append(model.adapted)
    if model.new:
        shown = ", ".join(model.new[:4]) + (" …" if len(model.new) > 4 else "")
        lines.append(f"not in the model's folder, and begun at random: {shown}")
    return lines
