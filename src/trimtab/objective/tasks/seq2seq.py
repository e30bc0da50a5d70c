"""Write a second text after reading a first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor

from trimtab.errors import ConfigError
from trimtab.objective.tasks.parts import (
    ClassObjective,
    judge_classes,
    language_metrics,
    logits_of,
    tally_tokens,
)
from trimtab.signals import Batch, LossTerms, ModelOutput


@final
class SequenceToSequenceTask:
    """Teacher forcing: the decoder reads the right second text up to a token, and is asked for that token.

    Source: Sutskever et al. 2014, arXiv 1409.3215; teacher forcing: Williams and Zipser 1989.
    """

    name = "seq2seq"
    leading_curves = ("validation/loss", "validation/accuracy", "train/loss", "generalization_gap")
    score_names = ("accuracy",)

    def __init__(self, objective: ClassObjective) -> None:
        self.objective = objective

    @property
    def term_names(self) -> tuple[str, ...]:
        """The objective's."""
        return self.objective.term_names

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """tokens_BT and document_ids_BT of the first text; second_BS, what the decoder reads."""
        if batch.second_BS is None:
            raise ConfigError("task: seq2seq needs pairs of texts, and the batch has no second one")
        return {
            "tokens_BT": batch.tokens_BT,
            "document_ids_BT": batch.document_ids_BT,
            "second_BS": batch.second_BS,
        }

    def terms(self, output: ModelOutput | Tensor, batch: Batch) -> LossTerms:
        """The objective against each token of the second text and its end."""
        return judge_classes(self.objective, output, batch.targets)

    def predictions(self, output: ModelOutput | Tensor, batch: Batch) -> Tensor:
        """The most probable token after the right ones, int64 [B, S]."""
        return logits_of(output).argmax(-1)

    def tally(self, output: ModelOutput | Tensor, batch: Batch, terms: LossTerms) -> Tensor:
        """Loss and right ones."""
        return tally_tokens(terms)

    def metrics(self, sums: Sequence[float], count: int) -> dict[str, float]:
        """`loss`, `accuracy`, `perplexity` per token of the second text."""
        return language_metrics(sums, count)
