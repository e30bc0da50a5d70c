"""Losses of numbers: how far a prediction lies from its target."""

from __future__ import annotations

import math
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.objective.cross_entropy import wide
from trimtab.signals import IGNORED, LossTerms, Term

RegressionName = Literal["mse", "rmse", "mae", "huber", "quantile", "log_cosh"]


@final
class Regression(nn.Module):
    """Sum over counted targets of a loss of the error e = prediction - target.

    mse: e². rmse: the root of the batch's mean square, no sum over parts. mae: |e|. huber: e²/2 up to |e| = delta,
    then delta (|e| - delta/2), so that outliers pull with constant force (Huber 1964). quantile: max(-q e, (1 - q) e),
    whose minimum is the q-quantile (Koenker and Bassett 1978). log_cosh: log cosh e, close to e²/2 near 0 and to
    |e| - log 2 far out.
    """

    def __init__(self, name: RegressionName = "mse", *, delta: float = 1.0, quantile: float = 0.5) -> None:
        super().__init__()
        self.name, self.delta, self.quantile = name, delta, quantile
        self.term_names = (name,)

    def forward(self, predictions: Tensor, targets: Tensor) -> LossTerms:
        """The terms over one micro-batch, in the shape of the targets; targets equal to IGNORED count nothing."""
        predictions = wide(predictions)
        counted = targets != IGNORED
        # Replaced, not multiplied by zero: what is not counted may hold anything.
        error = torch.where(counted, predictions - targets.to(predictions.dtype), 0.0)
        loss = self._loss(error)
        scores = {"mae": error.detach().abs().sum()}
        if self.name == "rmse":
            count = counted.sum().clamp_min(1)
            # A little above 0, where the root has no gradient.
            root = (loss.sum() / count + torch.finfo(torch.float32).tiny).sqrt()
            return LossTerms((Term("rmse", root * count, additive=False),), loss.detach(), scores)
        return LossTerms((Term(self.name, loss.sum()),), loss.detach(), scores)

    def _loss(self, error: Tensor) -> Tensor:
        match self.name:
            case "mse" | "rmse":
                return error.square()
            case "mae":
                return error.abs()
            case "huber":
                return F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=self.delta)
            case "quantile":
                return torch.maximum(-self.quantile * error, (1.0 - self.quantile) * error)
            case "log_cosh":
                # Without the overflow of cosh: |e| + log(1 + exp(-2|e|)) - log 2. Near 0 that is a difference of
                # equal numbers, and cosh e = 1 + 2 sinh²(e/2).
                far = error.abs() + F.softplus(-2.0 * error.abs()) - math.log(2.0)
                near = torch.log1p(2.0 * torch.sinh(error.clamp(-1.0, 1.0) / 2.0).square())
                return torch.where(error.abs() < 1.0, near, far)
