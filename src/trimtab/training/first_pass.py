"""How large activations and logits are before anything is learned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch

from trimtab.data import Sequences
from trimtab.model import Transformer, evaluating
from trimtab.signals import Task

LARGE_LOGITS: Final = 3.0
"""Their deviation: guesses are then sure of themselves before anything is learned."""
LARGE_GROWTH: Final = 10.0
"""Of the root mean square from the first block's output to the last one's."""


def scales_at_start(model: Transformer, task: Task, sequences: Sequences) -> dict[str, float | None]:
    """Of one training sequence in eval mode: `logits_std`, and `activation_growth`, the root mean square of the last
    block's output over that of the first (of an encoder-decoder in the part where it is larger). None where that is no
    finite number. Waits for the device.
    """
    batch = sequences.batch(np.arange(1), 1).to(next(model.parameters()).device)
    measured, model.measure_activations = model.measure_activations, True
    try:
        with evaluating(model):
            output = model(**task.inputs(batch))
            logits = output.head(output.features).float()
    finally:
        model.measure_activations = measured
    stacks: dict[str, list[float]] = {}
    names = list(output.signals)
    for name, value in zip(names, torch.stack(list(output.signals.values())).tolist(), strict=True):
        stacks.setdefault(name.partition("blocks.")[0], []).append(value)
    growths = [stack[-1] / max(stack[0], 1e-30) for stack in stacks.values()]
    found = {"logits_std": float(logits.std(correction=0)), "activation_growth": max(growths)}
    if not all(map(math.isfinite, growths)):  # a maximum may pass over what is no number
        found["activation_growth"] = math.nan
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def notes_on_scales(facts: Mapping[str, Any]) -> list[str]:
    """A line for each scale of `first_pass` that is too large to begin with."""
    scales, notes = facts.get("first_pass") or {}, []
    deviation, growth = scales.get("logits_std", 0.0), scales.get("activation_growth", 0.0)
    if deviation is None or deviation > LARGE_LOGITS:
        told = "are no finite numbers" if deviation is None else f"have a deviation of {deviation:.3g}"
        notes.append(
            f"before step 1 logits {told}: guesses should not be sure of themselves yet (lower "
            "model.initialization.standard_deviation)"
        )
    if growth is None or growth > LARGE_GROWTH:
        told = "leave the range of numbers" if growth is None else f"grow {growth:.3g} times"
        notes.append(
            f"before step 1 activations {told} from the first block to the last "
            "(model.initialization.depth_scaled=true, or a lower standard_deviation)"
        )
    return notes
