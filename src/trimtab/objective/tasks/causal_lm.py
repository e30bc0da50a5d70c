"""Predict each next token of a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.objective.tasks.parts import ClassObjective, TokenTask
from trimtab.signals import IGNORED, Batch, LossTerms, ModelOutput


@final
class CausalLanguageModelingTask(TokenTask):
    """Next-token prediction: the model sees tokens, positions and documents, never the targets.

    `token_bytes` is the number of UTF-8 bytes of each token, [V], for bits per byte.
    """

    name = "causal_lm"

    def __init__(self, objective: ClassObjective, token_bytes: NDArray[Any] | None = None) -> None:
        super().__init__(objective)
        self._bytes_V = None if token_bytes is None else torch.as_tensor(token_bytes)

    def tally(self, output: ModelOutput | Tensor, batch: Batch, terms: LossTerms) -> Tensor:
        """Loss, right ones, and bytes that the counted targets stand for."""
        sums = super().tally(output, batch, terms)
        if self._bytes_V is None:
            return sums
        self._bytes_V = self._bytes_V.to(batch.targets.device)
        bytes_BT = self._bytes_V[batch.targets.clamp_min(0)] * (batch.targets != IGNORED)
        return torch.cat((sums, bytes_BT.sum().double()[None]))

    def metrics(self, sums: Sequence[float], count: int) -> dict[str, float]:
        """`loss`, `accuracy`, `perplexity`, and `bits_per_byte` where the targets stand for bytes."""
        metrics = super().metrics(sums, count)
        if len(sums) > 2 and sums[2] > 0:
            metrics["bits_per_byte"] = sums[0] / math.log(2) / sums[2]
        return metrics
