"""Predict the tokens that were hidden in a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor

from trimtab.objective.tasks.parts import (
    ClassObjective,
    judge_classes,
    language_metrics,
    logits_of,
    tally_tokens,
    token_inputs,
)
from trimtab.signals import Batch, LossTerms, ModelOutput


@final
class MaskedLanguageModelingTask:
    """The model sees a text with holes, which `data/masking.py` makes, and is asked for what was there.

    Source: Devlin et al. 2019, arXiv 1810.04805, section 3.1.
    """

    name = "masked_lm"
    leading_curves = ("validation/loss", "validation/accuracy", "train/loss", "generalization_gap")
    score_names = ("accuracy",)

    def __init__(self, objective: ClassObjective) -> None:
        self.objective = objective

    @property
    def term_names(self) -> tuple[str, ...]:
        """The objective's."""
        return self.objective.term_names

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """tokens_BT, positions_BT, document_ids_BT."""
        return token_inputs(batch)

    def terms(self, output: ModelOutput | Tensor, batch: Batch) -> LossTerms:
        """The objective against the hidden tokens."""
        return judge_classes(self.objective, output, batch.targets)

    def predictions(self, output: ModelOutput | Tensor, batch: Batch) -> Tensor:
        """The most probable token, int64 [B, T]."""
        return logits_of(output).argmax(-1)

    def tally(self, output: ModelOutput | Tensor, batch: Batch, terms: LossTerms) -> Tensor:
        """Loss and right ones."""
        return tally_tokens(terms)

    def metrics(self, sums: Sequence[float], count: int) -> dict[str, float]:
        """`loss`, `accuracy`, `perplexity` over the hidden tokens."""
        return language_metrics(sums, count)
