"""What tasks share: the inputs of a model, and the score of a prediction of classes, with or without a fused head."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trimtab.objective.binary import BinaryCrossEntropy
from trimtab.objective.cross_entropy import CrossEntropy, is_plain
from trimtab.objective.focal import Focal
from trimtab.objective.regression import Regression
from trimtab.signals import Batch, LossTerms, ModelOutput

ClassObjective = CrossEntropy | Focal
"""Judges logits over classes, one of which is right."""


def logits_of(output: ModelOutput | Tensor) -> Tensor:
    """The logits of what a model gave."""
    return output.logits if isinstance(output, ModelOutput) else output


def token_inputs(batch: Batch) -> dict[str, Tensor]:
    """tokens_BT, positions_BT, document_ids_BT."""
    return {
        "tokens_BT": batch.tokens_BT,
        "positions_BT": batch.positions_BT,
        "document_ids_BT": batch.document_ids_BT,
    }


class Judged:
    """What every task over an objective does alike."""

    objective: ClassObjective | BinaryCrossEntropy | Regression

    @property
    def term_names(self) -> tuple[str, ...]:
        """The objective's."""
        return self.objective.term_names

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """tokens_BT, positions_BT, document_ids_BT."""
        return token_inputs(batch)


class ClassTask(Judged):
    """Asks for one class of several, whatever the classes are."""

    objective: ClassObjective
    score_names = ("accuracy",)

    def __init__(self, objective: ClassObjective) -> None:
        self.objective = objective

    def terms(self, output: ModelOutput | Tensor, batch: Batch) -> LossTerms:
        """The objective against the right classes."""
        return judge_classes(self.objective, output, batch.targets)

    def predictions(self, output: ModelOutput | Tensor, batch: Batch) -> Tensor:
        """The most probable class of each target, int64, in their shape."""
        return logits_of(output).argmax(-1)


class TokenTask(ClassTask):
    """Asks for tokens."""

    def tally(self, output: ModelOutput | Tensor, batch: Batch, terms: LossTerms) -> Tensor:
        """Loss and right ones."""
        return tally_tokens(terms)

    def metrics(self, sums: Sequence[float], count: int) -> dict[str, float]:
        """`loss`, `accuracy`, `perplexity` over the counted tokens."""
        return language_metrics(sums, count)


def judge_classes(objective: ClassObjective, output: ModelOutput | Tensor, targets: Tensor) -> LossTerms:
    """The terms of `objective` for classes `targets`; head and loss in one where that is possible."""
    if (
        isinstance(objective, CrossEntropy)
        and isinstance(output, ModelOutput)
        and is_plain(output.head)
        and objective.fuses(output)
    ):
        return objective.of_features(output.features, output.head.weight, targets)
    terms: LossTerms = objective(logits_of(output), targets)
    return terms


def tally_tokens(terms: LossTerms) -> Tensor:
    """fp64: loss, right ones."""
    return torch.stack((terms.losses.sum(dtype=torch.float64), terms.scores["accuracy"].double()))


def language_metrics(sums: Sequence[float], count: int) -> dict[str, float]:
    """`loss` (nats), `accuracy`, `perplexity` of what `tally_tokens` gave."""
    loss = sums[0] / count
    return {"loss": loss, "accuracy": sums[1] / count, "perplexity": perplexity_of(loss)}


def perplexity_of(loss: float) -> float:
    """exp(loss), infinite where that is beyond a float."""
    return math.inf if loss > 709.0 else math.exp(loss)
