"""Cross-entropy of labels that are decided one by one.

Shape suffixes: B sequences · V labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.objective.cross_entropy import scaled_smoothing, wide
from trimtab.signals import IGNORED, LossTerms, Term


@final
class BinaryCrossEntropy(nn.Module):
    """Sum over counted labels of -w (1 - q)^gamma [y log p + (1 - y) log(1 - p)], with p = sigmoid(logit).

    q is the probability given to what is true. With smoothing eps the label y becomes y (1 - eps) + eps / 2. The
    weight w of a label stands before its positive half alone, as torch's `pos_weight`. gamma above 0 is the focal loss.
    Source: Lin et al. 2017, arXiv 1708.02002, eq. 5 (gamma).
    """

    positive_weights_V: Tensor | None
    smoothing: Tensor
    term_names = ("binary_cross_entropy",)

    def __init__(
        self, label_smoothing: float = 0.0, gamma: float = 0.0, positive_weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.label_smoothing, self.gamma = label_smoothing, gamma
        weights = None if positive_weights is None else torch.tensor(positive_weights, dtype=torch.float32)
        self.register_buffer("positive_weights_V", weights, persistent=False)
        # A device scalar, so that a controller's factor reaches a captured step; fp64, as in CrossEntropy.
        self.register_buffer("smoothing", torch.tensor(label_smoothing, dtype=torch.float64), persistent=False)

    def set_smoothing_factor(self, factor: float) -> None:
        """Smooth with `label_smoothing` times `factor` from here on, at most 0.95; does not wait for the device."""
        self.smoothing.fill_(scaled_smoothing(self.label_smoothing, factor))

    def forward(self, logits_BV: Tensor, targets_BV: Tensor) -> LossTerms:
        """The terms over one micro-batch; targets are 0.0, 1.0, or IGNORED, which counts nothing."""
        counted_BV = targets_BV != IGNORED
        # Replaced, not multiplied by zero: what is not counted may hold anything.
        logits_BV = torch.where(counted_BV, wide(logits_BV), 0.0)
        label_BV = torch.where(counted_BV, targets_BV, 0.0).to(logits_BV.dtype)
        plain_BV = F.binary_cross_entropy_with_logits(logits_BV, label_BV, reduction="none")
        smooth_BV = label_BV * (1.0 - self.smoothing) + self.smoothing / 2
        loss_BV = F.binary_cross_entropy_with_logits(
            logits_BV, smooth_BV, reduction="none", pos_weight=self.positive_weights_V
        )
        if self.gamma > 0:
            rest_BV = -torch.expm1(-plain_BV)
            loss_BV = rest_BV.clamp_min(torch.finfo(torch.float32).tiny).pow(self.gamma) * loss_BV
        with torch.no_grad():
            correct = (((logits_BV > 0) == (label_BV > 0.5)) & counted_BV).sum()
        total = torch.where(counted_BV, loss_BV, 0.0).sum()
        plain_BV = torch.where(counted_BV, plain_BV.detach(), 0.0)
        return LossTerms((Term("binary_cross_entropy", total),), plain_BV, {"accuracy": correct})
