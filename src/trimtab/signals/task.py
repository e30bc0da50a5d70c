"""The contracts between model, task and objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

from trimtab.signals.batch import Batch

Unit = Literal["target", "sequence"]


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """What a model gives: features and the head that turns them into logits, so that head and loss can be fused."""

    features: Tensor
    """[B, T, D], or [B, D] of a model that speaks of whole sequences."""
    head: Callable[[Tensor], Tensor]
    """features -> logits: the last dimension becomes V."""
    signals: Mapping[str, Tensor] = field(default_factory=dict)
    """Named device scalars read on the way, such as `layer/blocks.0/activation_rms`."""
    scale: Callable[[], Tensor | None] | None = None
    """What similarities of vectors are multiplied with, where the model learns it; a call, so that a gradient of its
    own can be taken of it."""

    @property
    def logits(self) -> Tensor:
        """The head applied to the features."""
        return self.head(self.features)


@dataclass(frozen=True, slots=True)
class Term:
    """One summand of the objective. The total is the sum over terms of weight * sum / count of its unit."""

    name: str
    sum: Tensor
    """Scalar, summed over the micro-batch (fp32)."""
    unit: Unit = "target"
    """What it is averaged over: counted targets, or sequences."""
    weight: Tensor | float = 1.0
    additive: bool = True
    """False when sums of micro-batches do not add up to the sum of the batch (InfoNCE, for example)."""


@dataclass(frozen=True, slots=True)
class LossTerms:
    """What an objective says of one micro-batch."""

    terms: tuple[Term, ...]
    losses: Tensor
    """The plain loss of each target, without smoothing, weights and penalties, in the shape of the targets: fp32,
    detached; 0 where nothing is counted."""
    scores: Mapping[str, Tensor]
    """Scalars, summed over the counted targets and written as their mean `train/<name>`: `accuracy` is how many of
    them are right."""


class Task(Protocol):
    """What a batch asks of a model, and how the answer is scored."""

    @property
    def name(self) -> str:
        """As in the configuration."""
        ...

    @property
    def term_names(self) -> tuple[str, ...]:
        """The names of the terms that `terms` gives, in order."""
        ...

    @property
    def score_names(self) -> tuple[str, ...]:
        """The names of the scores that `terms` gives, in order."""
        ...

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Keyword arguments for the model; never labels."""
        ...

    def terms(self, output: ModelOutput | Tensor, batch: Batch) -> LossTerms:
        """The objective's terms. `output` is a ModelOutput, or plain logits."""
        ...

    def predictions(self, output: ModelOutput | Tensor, batch: Batch) -> Tensor:
        """The model's answers, in the shape of the targets."""
        ...

    def tally(self, output: ModelOutput | Tensor, batch: Batch, terms: LossTerms) -> Tensor:
        """All that the metrics need of a batch, as sums in one fp64 vector on the device: those of several batches,
        or ranks, add up, so that what is computed from them is exact and depends on no batch size."""
        ...

    def metrics(self, sums: Sequence[float], count: int) -> dict[str, float]:
        """`loss`, the mean plain loss, and the task's other metrics, from the sum of all tallies and the number of
        counted targets."""
        ...
