"""A number for each text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from trimtab.objective.regression import Regression
from trimtab.objective.tasks.parts import Judged, logits_of
from trimtab.signals import IGNORED, Batch, LossTerms, ModelOutput


@final
class RegressionTask(Judged):
    """One number for each text. The model gives it in standard units: value = mean + deviation · output.

    The loss is that of the standardized targets; `rmse`, `mae` and `r2` are in the units of the data. So that R² is
    not the small difference of large sums, squares are summed around `mean`, that of the training targets.
    """

    name = "regression"
    leading_curves = ("validation/rmse", "validation/r2", "validation/loss", "train/loss", "generalization_gap")
    score_names = ("mae",)

    def __init__(self, objective: Regression, mean: float = 0.0, deviation: float = 1.0) -> None:
        self.objective, self.mean, self.deviation = objective, mean, deviation

    def terms(self, output: ModelOutput | Tensor, batch: Batch) -> LossTerms:
        """The objective against the standardized targets; `mae` is in the units of the data."""
        terms: LossTerms = self.objective(logits_of(output).squeeze(-1), self._standardized(batch.targets))
        return LossTerms(terms.terms, terms.losses, {"mae": terms.scores["mae"] * self.deviation})

    def predictions(self, output: ModelOutput | Tensor, batch: Batch) -> Tensor:
        """The numbers, in the units of the data: float32 [B]."""
        return logits_of(output).squeeze(-1).float() * self.deviation + self.mean

    def tally(self, output: ModelOutput | Tensor, batch: Batch, terms: LossTerms) -> Tensor:
        """Loss, and sums of error², |error|, target - mean, (target - mean)²."""
        counted = batch.targets != IGNORED
        target = torch.where(counted, batch.targets.double() - self.mean, 0.0)
        error = torch.where(counted, self.predictions(output, batch).double() - self.mean - target, 0.0)
        sums = (error.square(), error.abs(), target, target.square())
        return torch.stack((terms.losses.sum(dtype=torch.float64), *(values.sum() for values in sums)))

    def metrics(self, sums: Sequence[float], count: int) -> dict[str, float]:
        """`loss`, `rmse`, `mae`, and `r2`: 1 - sum of error² / sum of (target - their mean)²."""
        loss, squared, absolute, shift, spread = sums
        around = spread - shift * shift / count
        metrics = {"loss": loss / count, "rmse": math.sqrt(squared / count), "mae": absolute / count}
        return metrics | ({"r2": 1.0 - squared / around} if around > 0 else {})

    def _standardized(self, targets: Tensor) -> Tensor:
        return torch.where(targets != IGNORED, (targets - self.mean) / self.deviation, float(IGNORED))
