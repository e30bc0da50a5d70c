"""What a model holds for probable: its entropy, and how far it is from what another does.

Shape suffixes: N targets · V classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trimtab.objective.cross_entropy import wide


def entropy(logits: Tensor) -> Tensor:
    """-sum of p log p over the last dimension, in nats, fp32."""
    log_p = torch.log_softmax(wide(logits), -1)
    return -_times(log_p.exp(), log_p).sum(-1)


def divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(p‖q) = sum of p log (p / q) over the last dimension, in nats, fp32, of logits divided by `temperature`."""
    log_p = torch.log_softmax(wide(teacher) / temperature, -1)
    log_q = torch.log_softmax(wide(student) / temperature, -1)
    return divergence_of_logs(log_p, log_q)


def divergence_of_logs(log_p: Tensor, log_q: Tensor) -> Tensor:
    """The same of the logarithms of both."""
    return _times(log_p.exp(), log_p - log_q).sum(-1)


def _times(p: Tensor, values: Tensor) -> Tensor:
    """p * values, 0 where p is 0: a logit may be -inf. Its gradient is finite there, too."""
    return p * torch.where(p > 0, values, 0.0)
