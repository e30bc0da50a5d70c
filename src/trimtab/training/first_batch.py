"""What no sound model does before step 1: answers that change by themselves, look ahead, or are probabilities already.

Shape suffixes: B sequences · T positions · V vocabulary, or classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from trimtab.data import Sequences
from trimtab.model import ForeignModel, as_output, evaluating
from trimtab.model.mode import buffers_kept, uncompiled
from trimtab.signals import ModelOutput, Task, key, seeded

SEQUENCES: Final = 2
LENGTH: Final = 128
POSITIONS: Final = 64
"""Of each sequence, from its beginning, the answers are looked at."""
_SUM: Final = 1e-3


def first_batch(model: nn.Module, task: Task, sequences: Sequences) -> dict[str, Any]:
    """Of the first training sequences in eval mode, as evaluations judge; None for what cannot be told:

    - `repeats_differ`: how much the answers change when the same weights are asked again, as a part of their
      deviation. 0 for a model whose dropout is off.
    - `mates_differ`: the same where a sequence is asked alone and beside another; not 0 where the statistics of the
      batch are used.
    - `future_changes`: the same at positions before those whose tokens are exchanged, for a model that predicts next
      tokens. 0 for one that does not look ahead.
    - `sum_to_one`: the part of answers that are probabilities already, none below 0 and with a sum of 1.
    - `input_rms`, `input_spread`: root mean square of the numbers that a model is fed with, and that of the largest
      feature over that of the middle one; None where tokens are embedded, or inputs normalized first.

    Four passes over two sequences, of models that take any length over their beginning, which leave no trace. Waits
    for the device. A model from elsewhere that cannot do one of them is not asked for that; `failed` says why there is
    nothing at all. Source: own.
    """
    if not len(sequences):
        return {}
    batch = sequences.batch(np.arange(min(SEQUENCES, len(sequences)))).to(next(model.parameters()).device)
    inputs = task.inputs(batch)
    if isinstance(model, ForeignModel):
        try:
            return _found(model, task, inputs)
        except Exception as error:  # it may still train
            return {"failed": f"{type(error).__name__}: {error}"[:200]}
    return _found(model, task, {name: value[:, :LENGTH] if value.ndim > 1 else value for name, value in inputs.items()})


def _found(model: nn.Module, task: Task, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    size = len(next(iter(inputs.values())))
    with _untouched(model):
        with _first_input(model) as seen:
            answers = _answers(model, inputs)
        again = _answers(model, inputs)
        alone = _alone(model, inputs) if size > 1 else None
        ahead = _exchanged(model, inputs) if task.name == "causal_lm" else None
    repeats, mates = _difference(answers, again), None
    if alone is not None:
        mates = _difference(answers[:1], alone)
    future = None
    # What changes by itself, or with its neighbours, changes with other tokens, too.
    if ahead is not None and not (repeats or 0.0) > 1e-2 and not (mates or 0.0) > 1e-1:
        future = _difference(answers[:, : ahead.shape[1]], ahead)
    return {
        "sequences": size,
        "repeats_differ": repeats,
        "mates_differ": mates,
        "future_changes": future,
        "sum_to_one": _sum_to_one(answers) if task.name != "regression" else None,
        **_scale_of(seen),
    }


def _answers(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Logits [B, V] of whole sequences, or [B, T, V] of their first positions: fp32."""
    output = as_output(model(**inputs))
    if isinstance(output, ModelOutput):
        features = output.features
        return output.head(features[:, :POSITIONS] if features.ndim == 3 else features).float()
    return (output[:, :POSITIONS] if output.ndim == 3 else output).float()


def _alone(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor | None:
    """The answers for the first sequence by itself; None of a model that takes no single one."""
    try:
        return _answers(model, {name: value[:1] for name, value in inputs.items()})
    except (RuntimeError, ValueError, IndexError):
        return None


def _exchanged(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor | None:
    """The answers at positions before those whose tokens are taken from another place; None where all are equal."""
    name = next((name for name in ("tokens_BT", "input_ids") if name in inputs), next(iter(inputs)))
    tokens_BT = inputs[name]
    cut = min(POSITIONS, tokens_BT.shape[1] // 2)
    changed_BT = tokens_BT.clone()
    changed_BT[:, cut:] = tokens_BT[:, cut:].flip(0, 1)
    if cut == 0 or torch.equal(changed_BT, tokens_BT):
        return None
    return _answers(model, {**inputs, name: changed_BT})[:, :cut]


def _difference(one: Tensor, other: Tensor) -> float | None:
    """Root mean square of the difference over the deviation of `one`; None where there is no such number."""
    if one.shape != other.shape:
        return None
    gap, deviation = (one - other).square().mean().sqrt(), one.std(correction=0)
    ratio = float(gap / deviation) if float(deviation) > 0 else float("nan")
    return ratio if np.isfinite(ratio) else None


def _sum_to_one(answers: Tensor) -> float | None:
    """The part of answers that are probabilities; None where there is one number each."""
    if answers.shape[-1] < 2:
        return None
    are = (answers.min(-1).values >= 0.0) & ((answers.sum(-1) - 1.0).abs() < _SUM)
    return float(are.float().mean())


def _scale_of(seen: list[Tensor]) -> dict[str, float | None]:
    if not seen:
        return {"input_rms": None, "input_spread": None}
    values = seen[0].detach().float()
    rms_F = values.reshape(-1, values.shape[-1]).square().mean(0).sqrt()
    middle = float(rms_F.median())
    found = {"input_rms": float(values.square().mean().sqrt()), "input_spread": float(rms_F.max()) / max(middle, 1e-30)}
    if middle <= 0:  # sparse features have no usual size
        found["input_spread"] = float("nan")
    return {name: value if np.isfinite(value) else None for name, value in found.items()}


@contextmanager
def _first_input(model: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, what the first layer with parameters is given: nothing where that is an embedding, or a norm."""
    seen: list[Tensor] = []
    is_over = False

    def look(module: nn.Module, given: tuple[Any, ...]) -> None:
        nonlocal is_over
        if not is_over and given and isinstance(given[0], Tensor):
            is_over = True
            if given[0].is_floating_point() and not _is_norm(module):
                seen.append(given[0])

    leaves = [one for one in model.modules() if next(one.parameters(recurse=False), None) is not None]
    handles = [one.register_forward_pre_hook(look) for one in leaves]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Inside, `model` is in eval mode and as written; then modes, generators and buffers are as they were."""
    device = next(model.parameters()).device
    devices = [device] if device.type == "cuda" else []
    with (
        buffers_kept(model),
        torch.random.fork_rng(devices=devices),
        seeded(key(0, 0, 0, "probe")),
        uncompiled(),
        evaluating(model),
    ):
        yield
