"""Predict each next token of a text."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from trimtab.objective.cross_entropy import CrossEntropy
from trimtab.signals import Batch, LossTerms, ModelOutput


def logits_of(output: ModelOutput | Tensor) -> Tensor:
    """logits_BTV of what a model gave."""
    return output.logits_BTV if isinstance(output, ModelOutput) else output


@final
class CausalLanguageModelingTask:
    """Next-token prediction: the model sees tokens, positions and documents, never the targets."""

    name = "causal_lm"
    leading_curves = ("validation/bits_per_byte", "validation/loss", "train/loss", "generalization_gap")

    def __init__(self, objective: CrossEntropy) -> None:
        self.objective = objective

    @property
    def term_names(self) -> tuple[str, ...]:
        """The objective's."""
        return self.objective.term_names

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """tokens_BT, positions_BT, document_ids_BT."""
        return {
            "tokens_BT": batch.tokens_BT,
            "positions_BT": batch.positions_BT,
            "document_ids_BT": batch.document_ids_BT,
        }

    def terms(self, output: ModelOutput | Tensor, batch: Batch) -> LossTerms:
        """Cross-entropy against the next token."""
        if isinstance(output, ModelOutput) and isinstance(output.head, nn.Linear) and self.objective.fuses(output):
            return self.objective.of_features(output.features_BTD, output.head.weight, batch.targets_BT)
        terms: LossTerms = self.objective(logits_of(output), batch.targets_BT)
        return terms

    def predictions(self, output: ModelOutput | Tensor, batch: Batch) -> Tensor:
        """The most probable next token, int64 [B, T]."""
        return logits_of(output).argmax(-1)
