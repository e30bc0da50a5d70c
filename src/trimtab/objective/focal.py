"""The focal loss over classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.objective.cross_entropy import counted_logits
from trimtab.objective.first_largest import first_largest
from trimtab.signals import IGNORED, LossTerms, Term


@final
class Focal(nn.Module):
    """Sum over counted targets of -w (1 - p)^gamma log p, where p is the probability of the target and w its weight.

    What is predicted well already counts less, so that rare and hard targets do not drown. gamma 0 is cross-entropy.
    Source: Lin et al. 2017, arXiv 1708.02002, eq. 5, over a softmax.
    """

    class_weights_V: Tensor | None
    term_names = ("focal",)

    def __init__(self, gamma: float = 2.0, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.gamma = gamma
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights_V", weights, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> LossTerms:
        """The terms over one micro-batch; targets equal to IGNORED count nothing."""
        logits_NV, targets_N, counted_N = counted_logits(logits, targets)
        plain_N = F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORED, reduction="none")
        # 1 - p, exact where p is near 1; the lower end keeps a power below 1 from an infinite gradient there.
        rest_N = -torch.expm1(-plain_N)
        loss_N = rest_N.clamp_min(torch.finfo(torch.float32).tiny).pow(self.gamma) * plain_N
        if self.class_weights_V is not None:
            loss_N = loss_N * self.class_weights_V[targets_N.clamp_min(0)]
        loss_N = torch.where(counted_N, loss_N, 0.0)
        with torch.no_grad():
            correct = ((first_largest(logits_NV) == targets_N) & counted_N).sum()
        return LossTerms((Term("focal", loss_N.sum()),), plain_N.detach().view(targets.shape), {"accuracy": correct})
