"""LAMB: Adam's update, scaled to the norm of the parameter that it changes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trimtab.optimizer.algorithms.adam import adam_direction
from trimtab.optimizer.algorithms.rule import Now, Rule, State


def lamb(beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-6) -> Rule:
    """theta - a * ||theta|| / ||u|| * u, where u = m_hat / (sqrt(v_hat) + eps) + l * theta.

    The ratio is 1 where a norm is 0.

    Source: You et al. 2020, arXiv 1904.00962, algorithm 2, with phi the identity.
    """

    def begin(weight: Tensor) -> State:
        return {"exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}

    def step(weight: Tensor, gradient: Tensor, state: Mapping[str, Tensor], now: Now) -> tuple[Tensor, State]:
        mean = state["exp_avg"].lerp(gradient, 1.0 - beta1)
        square = state["exp_avg_sq"].lerp(gradient.square(), 1.0 - beta2)
        update = adam_direction(mean, square, now.count, beta1, beta2, epsilon) + now.decay * weight
        size, length = torch.linalg.vector_norm(weight), torch.linalg.vector_norm(update)
        ratio = torch.where((size > 0) & (length > 0), size / length, 1.0)
        return weight - now.rate * ratio * update, {"exp_avg": mean, "exp_avg_sq": square}

    return Rule(begin, step, elementwise=False)
