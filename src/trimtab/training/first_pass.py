"""How large activations and logits are before anything is learned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from torch import Tensor, nn

from trimtab.data import Sequences
from trimtab.model import ForeignModel, HuggingFaceModel, Outside, evaluating
from trimtab.model.structure import streams_read
from trimtab.signals import Batch, LossTerms, ModelOutput, Task
from trimtab.training.first_batch import untouched

LARGE_LOGITS: Final = 3.0
"""Their deviation: guesses are then sure of themselves before anything is learned."""
LARGE_GROWTH: Final = 10.0
"""Of the root mean square from the first block's output to the last one's."""
SMALLER: Final = "draw the weights of your module smaller; of transformers model.config.initializer_range says how"
BETTER: Final = 0.9
"""Part of what guessing costs below which a model knows something."""


def scales_at_start(model: nn.Module, task: Task, sequences: Sequences) -> dict[str, float | bool | None]:
    """Of one training sequence in eval mode: `logits_std`, and `activation_growth`, the root mean square of the last
    layer's output over that of the first (of several stacks of layers in the one where it is largest). None where that
    is no finite number; growth is not there where a model has no layers one after the other (`layers_of`).

    `trained`, of models from outside: their weights come from a folder, or answer tokens better than guesses do, so
    that these scales are what training made of them. Leaves no trace, and waits for the device. A module from outside
    that cannot be asked so may still train: of it nothing is known.
    """
    try:
        return _scales(model, task, sequences)
    except Exception:
        if not isinstance(model, ForeignModel):
            raise
        return {}


def _scales(model: nn.Module, task: Task, sequences: Sequences) -> dict[str, float | bool | None]:
    batch = sequences.batch(np.arange(1), 1).to(next(model.parameters()).device)
    stacks: dict[str, list[Tensor]] = {}

    def tell(name: str, before: Tensor, after: Tensor) -> None:
        stacks.setdefault(name.rpartition(".")[0], []).append(after.float().square().mean().sqrt())

    with untouched(model), evaluating(model), streams_read(model, tell):
        output = model(**task.inputs(batch))
        logits = (output.logits if isinstance(output, ModelOutput) else output).float()
        terms = task.terms(output, batch)
    found: dict[str, float] = {"logits_std": float(logits.std(correction=0))}
    growths = [float(stack[-1] / stack[0].clamp_min(1e-30)) for stack in stacks.values()]
    if growths:
        # A maximum may pass over what is no number.
        found["activation_growth"] = max(growths) if all(map(math.isfinite, growths)) else math.nan
    scales: dict[str, float | bool | None] = {n: value if math.isfinite(value) else None for n, value in found.items()}
    if isinstance(model, Outside):
        scales["trained"] = (isinstance(model, HuggingFaceModel) and model.from_folder) or _knows(terms, logits, batch)
    return scales


def _knows(terms: LossTerms, logits: Tensor, batch: Batch) -> bool:
    """Whether tokens are answered better than by guesses that hold all for as probable."""
    if logits.ndim != 3 or batch.targets.ndim != 2 or not batch.count:
        return False
    return float(terms.losses.sum()) / batch.count < BETTER * math.log(logits.shape[-1])


def notes_on_scales(facts: Mapping[str, Any]) -> list[str]:
    """A line for each scale of `first_pass` that is too large to begin with."""
    scales, notes = facts.get("first_pass") or {}, []
    if scales.get("trained"):
        return []
    deviation, growth = scales.get("logits_std", 0.0), scales.get("activation_growth", 0.0)
    ours = "trained" not in scales
    if deviation is None or deviation > LARGE_LOGITS:
        told = "are no finite numbers" if deviation is None else f"have a deviation of {deviation:.3g}"
        what = "lower model.initialization.standard_deviation" if ours else SMALLER
        notes.append(f"before step 1 logits {told}: guesses should not be sure of themselves yet ({what})")
    if growth is None or growth > LARGE_GROWTH:
        told = "leave the range of numbers" if growth is None else f"grow {growth:.3g} times"
        what = "model.initialization.depth_scaled=true, or a lower standard_deviation" if ours else SMALLER
        notes.append(f"before step 1 activations {told} from the first block to the last ({what})")
    return notes
