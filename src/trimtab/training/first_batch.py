"""What no sound model does before step 1: answers that change by themselves, look ahead, or are probabilities already.

Shape suffixes: B sequences · T positions · V vocabulary, or classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trimtab.data import Sequences
from trimtab.errors import DataError
from trimtab.evaluation import evaluate
from trimtab.model import ForeignModel
from trimtab.model.answers import difference, first_input, normalized_twice, scale_of, sum_to_one, within_one
from trimtab.model.mode import buffers_kept, uncompiled
from trimtab.signals import IGNORED, Batch, LossTerms, ModelOutput, Task, key, seeded

SEQUENCES: Final = 2
LENGTH: Final = 128
POSITIONS: Final = 64
"""Of each sequence, from its beginning, the answers are looked at."""


def first_batch(model: nn.Module, task: Task, sequences: Sequences) -> dict[str, Any]:
    """Of the first training sequences, judged as evaluations do; None for what cannot be told:

    - `repeats_differ`: how much the answers change when the same weights are asked again, as a part of their
      deviation. 0 for a model whose dropout is off.
    - `mates_differ`: the same where a sequence is asked alone and beside another; not 0 where the statistics of the
      batch are used.
    - `future_changes`: the same at positions before those whose tokens are exchanged, for a model that predicts next
      tokens. 0 for one that does not look ahead.
    - `sum_to_one`: the part of answers that are probabilities already, none below 0 and with a sum of 1; of several
      labels a text `within_one` instead, the part that lies between 0 and 1.
    - `input_rms`, `input_spread`: root mean square of the numbers that a model is fed with, and that of the largest
      feature over that of the middle one; None where tokens are embedded, or inputs normalized first.
    - `normalized_twice`: norms whose input another kind of norm gave, by batches or by samples; left out where none is.

    Four passes over two sequences, of models that take any length over their beginning, which leave no trace. Waits
    for the device. A model from elsewhere that cannot be asked so may still train: `failed` says why there is nothing.
    Source: own.
    """
    if not len(sequences):
        return {}
    batch = sequences.batch(np.arange(min(SEQUENCES, len(sequences)))).to(next(model.parameters()).device)
    if isinstance(model, ForeignModel):
        try:
            return _found(model, task, batch)
        except Exception as error:
            return {"failed": f"{type(error).__name__}: {error}"[:200]}
    return _found(model, task, _cut(batch))


def _found(model: nn.Module, task: Task, batch: Batch) -> dict[str, Any]:
    if not batch.count:
        return {}
    size = len(batch.tokens_BT)
    of_labels = task.name == "classification" and batch.targets.ndim > 1 and batch.targets.is_floating_point()
    with untouched(model):
        with first_input(model) as seen, normalized_twice(model) as twice:
            answers = _answers(model, task, batch, size)
        again = _answers(model, task, batch, size)
        alone = _alone(model, task, batch) if size > 1 else None
        ahead = _exchanged(model, task, batch) if task.name == "causal_lm" else None
    repeats, mates = difference(answers, again), None if alone is None else difference(answers, alone)
    future = None
    # What changes by itself, or with its neighbours, changes with other tokens, too.
    if ahead is not None and not (repeats or 0.0) > 1e-2 and not (mates or 0.0) > 1e-1:
        future = difference(answers[:, : ahead.shape[1]], ahead)
    return {
        "sequences": size,
        "repeats_differ": repeats,
        "mates_differ": mates,
        "future_changes": future,
        "sum_to_one": sum_to_one(answers) if task.name != "regression" and not of_labels else None,
        **({"within_one": within_one(answers)} if of_labels else {}),
        **scale_of(seen),
        **({"normalized_twice": twice} if twice else {}),
    }


def _cut(batch: Batch) -> Batch:
    """Its first positions; a class for each sequence stays."""
    shorter = batch.each(lambda tensor: tensor[:, :LENGTH] if tensor.ndim > 1 else tensor)
    if batch.targets.ndim > 1 and batch.targets.is_floating_point():  # labels
        return replace(shorter, targets=batch.targets)
    return replace(shorter, count=int((shorter.targets != IGNORED).sum()))


@final
class _Rows:
    """The sequences of a batch that is there already."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.sequence_length, self.num_tokens = batch.tokens_BT.shape[1], batch.tokens_BT.numel()
        self.mean_length = float(self.sequence_length)

    def __len__(self) -> int:
        return len(self._batch.tokens_BT)

    def batch(
        self,
        indices: NDArray[np.int64],
        batch_size: int | None = None,
        occurrences: NDArray[np.int64] | None = None,
    ) -> Batch:
        """Those of `indices`; there are as many as a batch has."""
        rows = self._batch.each(lambda tensor: tensor[torch.from_numpy(indices).to(tensor.device)])
        return replace(rows, count=int((rows.targets != IGNORED).sum()))


def _answers(model: nn.Module, task: Task, batch: Batch, at_once: int) -> Tensor:
    """Logits [B, V] of whole sequences, or [B, T, V] of their first positions, as an evaluation gets them: fp32."""
    seen: list[Tensor] = []

    def look(batch: Batch, output: ModelOutput | Tensor, terms: LossTerms) -> None:
        values = output.features if isinstance(output, ModelOutput) else output
        values = values[:, :POSITIONS] if values.ndim == 3 else values
        seen.append((output.head(values) if isinstance(output, ModelOutput) else values).float())

    evaluate(model, task, _Rows(batch), batch_size=at_once, device=batch.tokens_BT.device, look=look)
    return torch.cat(seen)


def _alone(model: nn.Module, task: Task, batch: Batch) -> Tensor | None:
    """The answers for each sequence by itself; None of a model that takes no single one."""
    try:
        return _answers(model, task, batch, 1)
    except (RuntimeError, ValueError, IndexError, DataError):
        return None


def _exchanged(model: nn.Module, task: Task, batch: Batch) -> Tensor | None:
    """The answers at positions before those whose tokens are taken from another place; None where all are equal."""
    cut = min(POSITIONS, batch.tokens_BT.shape[1] // 2)
    changed_BT = batch.tokens_BT.clone()
    changed_BT[:, cut:] = batch.tokens_BT[:, cut:].flip(0, 1)
    if cut == 0 or torch.equal(changed_BT, batch.tokens_BT):
        return None
    return _answers(model, task, replace(batch, tokens_BT=changed_BT), len(changed_BT))[:, :cut]


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Inside, `model` runs as written; then generators and buffers are as they were."""
    device = next(model.parameters()).device
    devices = [device] if device.type == "cuda" else []
    with (
        buffers_kept(model),
        torch.random.fork_rng(devices=devices),
        seeded(key(0, 0, 0, "probe")),
        uncompiled(),
    ):
        yield
