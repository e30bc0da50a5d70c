"""What of the fast ways goes with a model from outside, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from trimtab.config import Config, CrossEntropyConfig, ObjectiveConfig, RowTask
from trimtab.data import Sequences
from trimtab.errors import ConfigError, TrimtabError
from trimtab.model import (
    Decoder,
    Encoder,
    ForeignModel,
    HuggingFaceModel,
    Network,
    Outside,
    evaluating,
    flops_per_token,
    translates,
)
from trimtab.signals import ModelOutput, Task
from trimtab.training.first_batch import untouched
from trimtab.training.memory import is_out_of_memory


def compiles(model: nn.Module, config: Config) -> bool:
    """Whether compiling `model`, which is not ours, may be tried without being asked for.

    A schedule of dropout changes rates that transformers keeps in Python, for each of which it would compile anew.
    """
    return isinstance(model, HuggingFaceModel) and config.dropout_schedule is None


def try_once(model: nn.Module, task: Task, sequences: Sequences, micro_batch_size: int) -> None:
    """Ask a module from outside about one micro-batch, in eval mode; it is left as it was. Waits for the device.

    Raises: ConfigError where what it gives has another shape than the task asks for, or where it fails.
    """
    if not isinstance(model, ForeignModel) or not len(sequences):
        return
    rows = min(micro_batch_size, len(sequences))
    batch = sequences.batch(np.arange(rows), micro_batch_size).to(next(model.parameters()).device)
    inputs = task.inputs(batch)
    try:
        with untouched(model), evaluating(model):
            output = model(**inputs)
            if isinstance(output, ModelOutput):
                output.head(output.features)
    except TrimtabError:
        raise
    except Exception as error:  # whatever a module from elsewhere raises
        if is_out_of_memory(error):
            return  # the first step meets it, too, where micro-batches are halved
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in inputs.items())
        raise ConfigError(
            f"model: {model.kind} fails where it is asked about the first texts ({shapes}): "
            f"{type(error).__name__}: {error}"[:600],
            hint="what a module gets and gives: docs/how-to/your-own-module.md",
        ) from error


def flops_of(model: nn.Module, sequence_length: int) -> dict[str, float] | None:
    """Floating-point operations for each token; None of a model that reads two texts, or takes no text by itself."""
    if not isinstance(model, Decoder | Encoder | Network | Outside) or translates(model):
        return None
    try:
        return flops_per_token(model, sequence_length)
    except Exception:
        if isinstance(model, ForeignModel):  # it may want batches of one size, and still train
            return None
        raise


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
