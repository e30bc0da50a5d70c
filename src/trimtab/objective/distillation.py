"""A task whose model learns from another one besides, and one that looks at what models hold for probable.

Shape suffixes: N targets · V classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, final

import torch
from torch import Tensor

from trimtab.objective.distributions import divergence, entropy
from trimtab.objective.tasks.parts import logits_of
from trimtab.signals import IGNORED, Batch, LossTerms, ModelOutput, Task, Term

Teacher = Callable[..., ModelOutput | Tensor]
"""A model in eval mode, called with the inputs of a task."""

_CHUNK: Final = 1 << 24
"""Logits that are looked at together, so that they take little memory."""


class Around:
    """What a task around another hands on."""

    task: Task
    name: str

    @property
    def score_names(self) -> tuple[str, ...]:
        """The task's."""
        return self.task.score_names

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """The task's."""
        return self.task.inputs(batch)

    def predictions(self, output: ModelOutput | Tensor, batch: Batch) -> Tensor:
        """The task's."""
        return self.task.predictions(output, batch)


@final
class DistillationTask(Around):
    """`task`, and weight · T² times the mean over counted targets of KL(teacher‖model), both at temperature T.

    T² keeps the gradient of the soft targets as large as that of the hard ones, whatever T is. The first `size` classes
    are compared: a model of transformers may have columns that no token has. Head and loss are never one operation: the
    logits of both models are needed. A sum over targets, so that any split into micro-batches gives the same gradient.
    The plain loss and the scores are the task's.

    Source: Hinton et al. 2015, arXiv 1503.02531, section 2 and 2.1; here the hard targets keep their weight of 1.
    """

    def __init__(
        self, task: Task, teacher: Teacher, *, size: int, temperature: float = 2.0, weight: float = 1.0
    ) -> None:
        self.task, self.teacher, self.size = task, teacher, size
        self.temperature, self.weight = temperature, weight
        self.name = task.name

    @property
    def term_names(self) -> tuple[str, ...]:
        """The task's, and `distillation`."""
        return (*self.task.term_names, "distillation")

    def terms(self, output: ModelOutput | Tensor, batch: Batch) -> LossTerms:
        """The task's terms, and the sum of the divergence over the counted targets."""
        logits = logits_of(output)
        with torch.no_grad():
            taught = logits_of(self.teacher(**self.task.inputs(batch)))
        counted = (batch.targets != IGNORED).unsqueeze(-1)
        # Replaced, not multiplied by zero: what is not counted may hold anything.
        ours, theirs = (torch.where(counted, one[..., : self.size], 0.0) for one in (logits, taught))
        apart = divergence(theirs, ours, self.temperature).sum()
        terms = self.task.terms(logits, batch)
        more = Term("distillation", apart, weight=self.weight * self.temperature**2)
        return replace(terms, terms=(*terms.terms, more))

    def tally(self, output: ModelOutput | Tensor, batch: Batch, terms: LossTerms) -> Tensor:
        """The task's."""
        return self.task.tally(output, batch, terms)

    def metrics(self, sums: Sequence[float], count: int) -> dict[str, float]:
        """The task's."""
        return self.task.metrics(sums, count)


@final
class ProbableTask(Around):
    """`task` with `entropy`, the mean entropy of the model's answers, and `teacher_divergence`, the mean KL(teacher‖
    model) at temperature 1, beside its metrics: each of both where it is asked for. In nats, of the first `size`
    classes, in portions of the targets, so that logits are never there all at once where a head is fused."""

    def __init__(self, task: Task, *, size: int, has_entropy: bool = True, teacher: Teacher | None = None) -> None:
        self.task, self.size, self.has_entropy, self.teacher = task, size, has_entropy, teacher
        self.name = task.name
        self._added = (*(("entropy",) if has_entropy else ()), *(("teacher_divergence",) if teacher else ()))

    @property
    def term_names(self) -> tuple[str, ...]:
        """The task's."""
        return self.task.term_names

    def terms(self, output: ModelOutput | Tensor, batch: Batch) -> LossTerms:
        """The task's."""
        return self.task.terms(output, batch)

    def tally(self, output: ModelOutput | Tensor, batch: Batch, terms: LossTerms) -> Tensor:
        """The task's sums, and those of what is added."""
        outputs = [output] if self.teacher is None else [output, self.teacher(**self.task.inputs(batch))]
        counted_N = (batch.targets != IGNORED).flatten()
        sums = torch.zeros(len(self._added), dtype=torch.float64, device=batch.targets.device)
        size = max(1, _CHUNK // self.size)
        for first in range(0, len(counted_N), size):
            rows = slice(first, first + size)
            logits = [_of_rows(one, rows)[..., : self.size] for one in outputs]
            values = [entropy(logits[0])] if self.has_entropy else []
            values += [divergence(logits[1], logits[0])] if self.teacher is not None else []
            found = torch.stack([torch.where(counted_N[rows], one, 0.0).sum(dtype=torch.float64) for one in values])
            sums += found
        return torch.cat((self.task.tally(output, batch, terms), sums))

    def metrics(self, sums: Sequence[float], count: int) -> dict[str, float]:
        """The task's, and the means of what is added."""
        own, added = sums[: -len(self._added)], sums[-len(self._added) :]
        return self.task.metrics(own, count) | {
            name: value / count for name, value in zip(self._added, added, strict=True)
        }


def _of_rows(output: ModelOutput | Tensor, rows: slice) -> Tensor:
    """The logits of some of the targets."""
    if isinstance(output, ModelOutput):
        return output.head(output.features.flatten(0, -2)[rows])
    return output.flatten(0, -2)[rows]
