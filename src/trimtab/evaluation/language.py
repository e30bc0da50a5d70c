"""How well a model does its task: exact sums over counted tokens, divided once.

Shape suffixes: B sequences · T positions · V vocabulary; all of them in `signals/batch.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trimtab.data import Sequences
from trimtab.errors import DataError
from trimtab.model import evaluating
from trimtab.signals import Batch, LossTerms, ModelOutput, Task

Look = Callable[[Batch, ModelOutput | Tensor, LossTerms], None]
"""Sees what a model says of a batch, and how that is judged; must not wait for the device."""


def evaluate(
    model: nn.Module,
    task: Task,
    sequences: Sequences,
    *,
    batch_size: int,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    max_tokens: int | None = None,
    progress: Callable[[float], None] | None = None,
    look: Look | None = None,
) -> dict[str, float]:
    """The metrics of `task`, `loss` first, over the counted targets.

    The loss is the plain one, without smoothing, weights and penalties. Sums are kept in float64 on the device
    and fetched once, at the end: the result does not depend on `batch_size`, and no batch waits. Only vectors
    (task contrastive) are compared with those that are judged at once. Eval mode, no gradients; modes are restored.
    With `max_tokens` as many sequences as hold so many tokens, at least one, are taken at even distances. `progress`
    is told the part that is begun, and `look` is shown each batch.

    Raises:
        DataError: no target is counted.
    """
    indices = spread_indices(sequences, max_tokens)
    sums: Tensor | None = None
    count = 0
    with evaluating(model):
        for start in range(0, len(indices), batch_size):
            if progress is not None:
                progress(start / len(indices))
            batch = sequences.batch(indices[start : start + batch_size], batch_size).to(device)
            with autocast():
                output = model(**task.inputs(batch))
                terms = task.terms(output, batch)
                tally = task.tally(output, batch, terms)
            if look is not None:
                look(batch, output, terms)
            sums = tally if sums is None else sums + tally
            count += batch.count
    if sums is None or count == 0:
        raise DataError("there is nothing to evaluate on: no target of these sequences is counted")
    return task.metrics(sums.tolist(), count)


def spread_indices(sequences: Sequences, max_tokens: int | None) -> NDArray[np.int64]:
    """All indices, or those of as many sequences as hold `max_tokens`, at even distances; at least one."""
    count = len(sequences)
    if max_tokens is None or max_tokens >= sequences.num_tokens:
        return np.arange(count)
    num_taken = max(1, int(max_tokens / sequences.mean_length))
    return np.arange(num_taken) * count // num_taken
