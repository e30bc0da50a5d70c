"""A loss over all micro-batches of a step, in the memory of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from trimtab.errors import ConfigError
from trimtab.signals import IGNORED, Batch, ModelOutput, Pass, Passes


def cached_gradients(
    passes: Passes,
    batches: Sequence[Batch],
    at: Callable[[int], None],
    each: Callable[[ModelOutput], None],
    passed: int | None = None,
) -> Pass:
    """The gradient of the objective over all of `batches` together, and what came of it.

    First the features of each are computed without their graph; then the objective over all of them, and its gradient
    by each feature and by what stands behind them, head and temperature; then each micro-batch again, whose graph takes
    the gradient of its features back. Two passes forward and one back: about 4/3 of the time.
    `at(index)` is called before each pass over micro-batch `index`, and sets what it draws: both passes are the same.
    `each` is told of each output of the second. With `passed` only the first so many pass through the model, and the
    others have features of zeros: what a step takes of memory, without its time.

    Source: Gao et al. 2021, arXiv 2101.06983, section 3.2; the head belongs to the loss here.

    Raises: ConfigError for a model that gives no features.
    """
    outputs: list[ModelOutput] = []
    with torch.no_grad(), passes.apart():
        for index, batch in enumerate(batches[:passed]):
            at(index)
            outputs.append(_with_features(passes.output(batch)))
    outputs += [replace(outputs[0], features=torch.zeros_like(outputs[0].features)) for _ in batches[len(outputs) :]]
    leaves = [output.features.detach().requires_grad_() for output in outputs]
    longest = max(leaf.shape[1] for leaf in leaves) if leaves[0].dim() == 3 else 0
    features = [F.pad(leaf, (0, 0, 0, longest - leaf.shape[1])) if longest else leaf for leaf in leaves]
    found = passes.judge(replace(outputs[0], features=torch.cat(features), signals={}), joined(batches), whole=True)
    passes.backward(found.total)
    for index, batch in enumerate(batches[:passed]):
        at(index)
        output = _with_features(passes.output(batch))
        each(output)
        slope = leaves[index].grad
        assert slope is not None  # the objective is made of the features
        passes.backward(output.features, slope)
    return found


def joined(batches: Sequence[Batch]) -> Batch:
    """All rows in one batch, padded to the longest; targets of positions that are padding count nothing."""
    padding = {"document_ids_BT": -1, "second_BS": -1, "targets": IGNORED}
    tensors: dict[str, Tensor] = {}
    for name in batches[0].tensors():
        parts = [batch.tensors()[name] for batch in batches]
        per_token = parts[0].dim() == 2 and (name != "targets" or not parts[0].is_floating_point())
        if per_token:
            longest = max(part.shape[1] for part in parts)
            parts = [F.pad(part, (0, longest - part.shape[1]), value=padding.get(name, 0)) for part in parts]
        tensors[name] = torch.cat(parts)
    return replace(batches[0], count=sum(batch.count for batch in batches), **tensors)


def _with_features(output: ModelOutput | Tensor) -> ModelOutput:
    if isinstance(output, ModelOutput):
        return output
    raise ConfigError(
        "training.accumulation: the gradient of an objective over all micro-batches comes by way of features, and this "
        "model gives none",
        hint="set training.accumulation=1; trimtab's own models give features",
    )
