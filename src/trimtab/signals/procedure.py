"""How a micro-batch becomes gradients: what a procedure is given, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from trimtab.signals.batch import Batch
from trimtab.signals.task import ModelOutput

Change = Callable[[Tensor, int], Tensor]
"""Embeddings [B, T, D] and the number, from 0, of the text that the model is reading -> what stands in their place."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What came of a micro-batch."""

    output: ModelOutput | Tensor
    total: Tensor
    """The objective: each term divided by the count of the whole step, so that those of micro-batches add up."""
    means: Mapping[str, Tensor]
    """The terms that it is made of, so divided, and what a procedure adds; detached."""
    scores: Mapping[str, Tensor]
    """Sums over the counted targets; detached."""


class Passes(Protocol):
    """Forward and backward passes over micro-batches of one step. No call waits for the device."""

    @property
    def inverse(self) -> Mapping[str, Tensor]:
        """1 / count of the whole step, for each unit."""
        ...

    @property
    def generator(self) -> torch.Generator:
        """What a procedure draws from: set anew for each micro-batch, apart from what the model draws."""
        ...

    def output(self, batch: Batch, change: Change | None = None) -> ModelOutput | Tensor:
        """The model's answer, with its embeddings changed."""
        ...

    def forward(self, batch: Batch, change: Change | None = None) -> Pass:
        """The model's answer and what the objective says of it. Each draws random numbers of its own."""
        ...

    def judge(self, output: ModelOutput | Tensor, batch: Batch, *, whole: bool = False) -> Pass:
        """What the objective says of `output`; `whole` where `batch` is all of the step.

        Raises: ConfigError for a term that is no sum over micro-batches, of a part of a step.
        """
        ...

    def again(self) -> None:
        """What is drawn next is what was drawn from the beginning of the micro-batch on."""
        ...

    def apart(self) -> AbstractContextManager[None]:
        """Within it passes leave no trace in running statistics."""
        ...

    def backward(self, of: Tensor, slope: Tensor | None = None) -> None:
        """Add the gradient of a loss to that of the step; or of any tensor with `slope`, the loss's gradient by it,
        times the loss scale."""
        ...

    def slopes(self, loss: Tensor, of: Sequence[Tensor]) -> list[Tensor]:
        """The gradient of `loss` by each tensor of `of` alone, times the loss scale; parameters keep theirs."""
        ...


class Procedure(Protocol):
    """(passes over the model and the objective, micro-batch) -> gradients. One stands for the whole run; no state."""

    @property
    def term_names(self) -> tuple[str, ...]:
        """What it adds to the means of a pass, beside the objective's."""
        ...

    @property
    def num_backwards(self) -> int:
        """How many backward passes add to the step's gradient."""
        ...

    def __call__(self, passes: Passes, batch: Batch) -> Pass:
        """Leave the gradient of one micro-batch, and say what came of it."""
        ...
