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
    """One number for each text. Targets and outputs are in standard units: value = mean + deviation · output.

    The loss is that of the standard units; `rmse`, `mae` and `r2` are in the units of the data. So that R² is not the
    small difference of large sums, squares are summed around `mean`, that of the training targets.
    """

    name = "regression"
    score_names = ("mae",)

    def __init__(self, objective: Regression, mean: float = 0.0, deviation: float = 1.0) -> None:
        self.objective, self.mean, self.deviation = objective, mean, deviation

    def terms(self, output: ModelOutput | Tensor, batch: Batch) -> LossTerms:
        """The objective; its `mae` is in the units of the data."""
        terms: LossTerms = self.objective(logits_of(output).squeeze(-1), batch.targets)
        return LossTerms(terms.terms, terms.losses, {"mae": terms.scores["mae"] * self.deviation})

    def predictions(self, output: ModelOutput | Tensor, batch: Batch) -> Tensor:
        """The numbers, in the units of the data: float64 [B]."""
        return logits_of(output).squeeze(-1).double() * self.deviation + self.mean

    def tally(self, output: ModelOutput | Tensor, batch: Batch, terms: LossTerms) -> Tensor:
        """Loss, and sums of error², |error|, target - mean, (target - mean)², error, error · (target - mean)."""
        counted = batch.targets != IGNORED
        target = torch.where(counted, batch.targets.double() * self.deviation, 0.0)
        error = torch.where(counted, logits_of(output).squeeze(-1).double() * self.deviation - target, 0.0)
        sums = (error.square(), error.abs(), target, target.square(), error, error * target)
        return torch.stack((terms.losses.sum(dtype=torch.float64), *(values.sum() for values in sums)))

    def metrics(self, sums: Sequence[float], count: int) -> dict[str, float]:
        """`loss`, `rmse`, `mae`, `r2`: 1 - sum of error² / sum of (target - their mean)², and the
        correlation `pearson`.

        Of equal targets `r2` and `pearson` are NaN: there is nothing to explain. Of equal answers `pearson` is.
        """
        loss, squared, absolute, shift, spread, off, product = sums
        around = spread - shift * shift / count
        # What rounding leaves of equal targets is no spread.
        r2 = 1.0 - squared / around if around > 1e-12 * spread else math.nan
        # The answer is target + error: its covariance with the target, and its own variance, follow from theirs.
        together = product - off * shift / count
        covariance, answers = around + together, around + 2.0 * together + squared - off * off / count
        vary = around > 1e-12 * spread and answers > 1e-12 * (spread + squared)
        pearson = max(-1.0, min(1.0, covariance / math.sqrt(around * answers))) if vary else math.nan
        return {
            "loss": loss / count,
            "rmse": math.sqrt(squared / count),
            "mae": absolute / count,
            "r2": r2,
            "pearson": pearson,
        }
