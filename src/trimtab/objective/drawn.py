"""Classes drawn from a model's own probabilities, and the loss against them, for estimates of the curvature."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from trimtab.objective.tasks.parts import logits_of
from trimtab.signals import IGNORED, ModelOutput


def draw_classes(logits: Tensor) -> Tensor:
    """A class for each row of logits [..., V] by its softmax, int64 [...]; from the device's generator, which no one
    waits for.

    Source: the largest of logits with Gumbel noise (Gumbel 1954), which also takes logits that are not finite.
    """
    noise = -torch.empty_like(logits, dtype=torch.float32).exponential_().log()
    return (logits.detach().float() + noise).argmax(-1)


def drawn_loss(output: ModelOutput | Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy (nats) against drawn classes, summed over the counted targets: plain, without smoothing or weights.

    Source: Liu et al. 2023, arXiv 2305.14342, algorithm 2.
    """
    counted = targets != IGNORED
    logits = logits_of(output).float()
    # Rows that are not counted may hold anything: they are replaced, not multiplied by zero.
    logits = torch.where(counted.unsqueeze(-1), logits, 0.0)
    drawn = torch.where(counted, draw_classes(logits), IGNORED)
    return F.cross_entropy(logits.flatten(0, -2), drawn.flatten(), ignore_index=IGNORED, reduction="sum")
