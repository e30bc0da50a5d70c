"""How far two answers to the same targets are apart, whatever the answers are.

Shape suffixes: N targets · V classes, or labels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from trimtab.objective.cross_entropy import wide
from trimtab.objective.distributions import divergence_of_logs
from trimtab.signals import IGNORED

Answers = Literal["classes", "labels", "numbers"]


def symmetric_divergence(first: Tensor, second: Tensor, targets: Tensor, answers: Answers) -> Tensor:
    """Summed over the counted targets, in fp32 or wider, a scalar; 0 where both are the same.

    Of `classes` KL(p‖q) + KL(q‖p) of the softmax of logits [..., V] (nats); of `labels` the same of each label's two
    answers; of `numbers` the square of the difference.
    Source: Jiang et al. 2020, arXiv 1911.03437, below equation 2; for labels own, as each is a class of two.
    """
    # Rows that are not counted may hold anything: they are replaced, not multiplied by zero.
    counted = (targets != IGNORED).unsqueeze(-1) if answers == "classes" else targets != IGNORED
    if answers == "numbers":
        first, second = first.reshape(targets.shape), second.reshape(targets.shape)
    one, other = (torch.where(counted, wide(x), 0.0) for x in (first, second))
    if answers == "numbers":
        return (one - other).square().sum()
    if answers == "labels":
        return ((one.sigmoid() - other.sigmoid()) * (one - other)).sum()
    p, q = F.log_softmax(one, -1), F.log_softmax(other, -1)
    return (divergence_of_logs(p, q) + divergence_of_logs(q, p)).sum()
