"""How answers differ, whether they are probabilities already, the scale of what a model is fed with, norms in a row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from torch import Tensor, nn

_SUM: Final = 1e-3
_EVEN: Final = 1e-3


def difference(one: Tensor, other: Tensor) -> float | None:
    """Root mean square of the difference over the deviation of `one`; None where there is no such number. Answers that
    hardly differ from each other have no deviation to speak of: there over a thousandth of their own size."""
    if one.shape != other.shape:
        return None
    gap, deviation = (one - other).square().mean().sqrt(), one.std(correction=0)
    deviation = deviation.clamp(min=_EVEN * float(one.square().mean().sqrt()))
    ratio = float(gap / deviation) if float(deviation) > 0 else float("nan")
    return ratio if np.isfinite(ratio) else None


def sum_to_one(answers: Tensor) -> float | None:
    """The part of answers that are probabilities; None where there is one number each."""
    if answers.shape[-1] < 2:
        return None
    are = (answers.min(-1).values >= 0.0) & ((answers.sum(-1) - 1.0).abs() < _SUM)
    return float(are.float().mean())


def within_one(answers: Tensor) -> float:
    """The part of answers that may be probabilities of labels already: 0 to 1. Of logits about a third is, and
    of a head that begins at nothing all are 0, which is left out."""
    return float(((answers > 0.0) & (answers <= 1.0)).float().mean())


def scale_of(seen: list[Tensor]) -> dict[str, float | None]:
    """`input_rms` and `input_spread` of what `first_input` saw: None where that was nothing."""
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
def first_input(model: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, what the first layer with parameters is given: nothing where that is an embedding, or a norm."""
    seen: list[Tensor] = []
    is_over = False

    def look(module: nn.Module, given: tuple[Any, ...]) -> None:
        nonlocal is_over
        if not is_over and given and isinstance(given[0], Tensor):
            is_over = True
            if given[0].is_floating_point() and "norm" not in type(module).__name__.lower():
                seen.append(given[0])

    leaves = [one for one in model.modules() if next(one.parameters(recurse=False), None) is not None]
    handles = [one.register_forward_pre_hook(look) for one in leaves]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def normalized_twice(model: nn.Module) -> Iterator[list[str]]:
    """Inside, the names of norms that are given what another kind of norm gave, by batches or by samples.

    The same numbers, as they are or seen in another shape: a sum with a residual, or a layer between, is no such thing.
    """
    kinds = {name: kind for name, module in model.named_modules() if (kind := _kind_of_norm(module))}
    found: list[str] = []
    if len(set(kinds.values())) < 2:
        yield found
        return
    given: list[tuple[str, Tensor]] = []  # kept alive, so that their memory is not another's in the same pass

    def before(name: str, inputs: tuple[Any, ...]) -> None:
        if not inputs or not isinstance(inputs[0], Tensor):
            return
        place = inputs[0].untyped_storage().data_ptr()
        if name not in found and any(k != kinds[name] and x.untyped_storage().data_ptr() == place for k, x in given):
            found.append(name)

    def after(name: str, output: Any) -> None:
        if isinstance(output, Tensor):
            given.append((kinds[name], output))

    handles = []
    for name in kinds:
        module = model.get_submodule(name)
        handles.append(module.register_forward_pre_hook(lambda _, inputs, name=name: before(name, inputs)))
        handles.append(module.register_forward_hook(lambda _, inputs, output, name=name: after(name, output)))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _kind_of_norm(module: nn.Module) -> str:
    """Of what the statistics are: "batch", "sample", or "" for what is no norm."""
    name = type(module).__name__.lower()
    if "norm" not in name or list(module.children()):
        return ""
    return "batch" if "batchnorm" in name else "sample" if "layernorm" in name or "rmsnorm" in name else ""
