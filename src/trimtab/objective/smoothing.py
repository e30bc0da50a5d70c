"""Label smoothing for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

import torch
from torch import Tensor, nn

from trimtab.objective.cross_entropy import CrossEntropy
from trimtab.signals import IGNORED


@final
class LabelSmoothingLoss(nn.Module):
    """Mean over counted targets of cross-entropy (nats) against smoothed targets, in fp32.

    `spread="all"` puts smoothing / K on each of the K classes, as torch does; `spread="others"` puts
    smoothing / (K - 1) on all but the target. `ignore_index` marks targets that are not counted, whatever their logits
    are. Differs from torch where nothing is counted: the loss is then 0, as is its gradient, not NaN; and with
    `class_weights`, which stand before each class's term: the sum is divided by the number of targets. Waits for no
    device.

    Source: Szegedy et al. 2016, arXiv 1512.00567, section 7.
    """

    def __init__(
        self,
        smoothing: float = 0.1,
        *,
        spread: Literal["all", "others"] = "all",
        ignore_index: int = IGNORED,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        """Raises: ValueError for a `smoothing` below 0 or from 1 on, or an unknown `spread`."""
        super().__init__()
        if not 0.0 <= smoothing < 1.0:
            raise ValueError(
                f"smoothing must be at least 0 and less than 1. Received: {smoothing}. "
                "The number of classes is read from the logits"
            )
        if spread not in ("all", "others"):
            raise ValueError(f"spread must be 'all' or 'others'. Received: {spread!r}")
        self.smoothing, self.spread, self.ignore_index = smoothing, spread, ignore_index
        self._loss = CrossEntropy(smoothing, spread, class_weights=class_weights)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits [..., V] against classes [...], as a scalar.

        Raises: ValueError where the shapes do not belong together; ConfigError for `others` with a single class.
        """
        if logits.shape[:-1] != targets.shape:
            raise ValueError(
                "logits must be [..., classes] and targets [...] of the same shape before that. "
                f"Received: {list(logits.shape)} and {list(targets.shape)}"
            )
        counted = targets != self.ignore_index
        # Below the classes torch knows nothing but IGNORED, and CrossEntropy neither.
        given = torch.where(counted, targets, IGNORED)
        (term,) = self._loss(logits, given).terms
        total: Tensor = term.sum
        return total / counted.sum().clamp_min(1)

    def extra_repr(self) -> str:
        """What it was made with."""
        return f"smoothing={self.smoothing}, spread={self.spread!r}, ignore_index={self.ignore_index}"
