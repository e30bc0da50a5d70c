"""The contracts between model, task and objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

from trimtab.signals.batch import Batch

Unit = Literal["token", "sequence"]


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """What a model gives: features and the head that turns them into logits, so that head and loss can be fused."""

    features_BTD: Tensor
    head: Callable[[Tensor], Tensor]
    """features_BTD -> logits_BTV."""
    signals: Mapping[str, Tensor] = field(default_factory=dict)
    """Named device scalars read on the way, such as `layer/blocks.0/activation_rms`."""

    @property
    def logits_BTV(self) -> Tensor:
        """The head applied to the features."""
        return self.head(self.features_BTD)


@dataclass(frozen=True, slots=True)
class Term:
    """One summand of the objective. The total is the sum over terms of weight * sum / count of its unit."""

    name: str
    sum: Tensor
    """Scalar, summed over the micro-batch (fp32)."""
    unit: Unit = "token"
    """What it is averaged over: counted tokens, or sequences."""
    weight: Tensor | float = 1.0
    additive: bool = True
    """False when sums of micro-batches do not add up to the sum of the batch (InfoNCE, for example)."""


@dataclass(frozen=True, slots=True)
class LossTerms:
    """What an objective says of one micro-batch."""

    terms: tuple[Term, ...]
    token_loss_BT: Tensor
    """fp32, detached; 0 where nothing is counted."""
    correct: Tensor
    """Scalar: counted predictions that are right."""


class Task(Protocol):
    """What a batch asks of a model, how the answer is scored, and which curves to look at first."""

    @property
    def name(self) -> str:
        """As in the configuration."""
        ...

    @property
    def leading_curves(self) -> tuple[str, ...]:
        """Metrics to look at first."""
        ...

    @property
    def term_names(self) -> tuple[str, ...]:
        """The names of the terms that `terms` gives, in order."""
        ...

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Keyword arguments for the model; never labels."""
        ...

    def terms(self, output: ModelOutput | Tensor, batch: Batch) -> LossTerms:
        """The objective's terms. `output` is a ModelOutput, or plain logits_BTV."""
        ...

    def predictions(self, output: ModelOutput | Tensor, batch: Batch) -> Tensor:
        """The most probable answers, int64 [B, T]."""
        ...
