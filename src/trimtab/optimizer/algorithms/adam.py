"""Adam, with weight decay decoupled or as an L2 penalty."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trimtab.optimizer.algorithms.rule import Now, Rule, State


def adam(beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8, *, decoupled: bool = False) -> Rule:
    """theta - a * m_hat / (sqrt(v_hat) + eps), with bias-corrected moments.

    The weight decay adds l * theta to the gradient, or when `decoupled` takes a * l * theta from the weight.
    Source: Kingma and Ba 2015, arXiv 1412.6980, algorithm 1; Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2.
    """

    def begin(weight: Tensor) -> State:
        return {"exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}

    def step(weight: Tensor, gradient: Tensor, state: Mapping[str, Tensor], now: Now) -> tuple[Tensor, State]:
        if decoupled:
            weight = weight * (1.0 - now.rate * now.decay)
        else:
            gradient = gradient + now.decay * weight
        mean = state["exp_avg"].lerp(gradient, 1.0 - beta1)
        square = state["exp_avg_sq"].lerp(gradient.square(), 1.0 - beta2)
        return weight - now.rate * adam_direction(mean, square, now.count, beta1, beta2, epsilon), {
            "exp_avg": mean,
            "exp_avg_sq": square,
        }

    return Rule(begin, step)


def adam_direction(
    mean: Tensor, square: Tensor, count: Tensor, beta1: float, beta2: float, epsilon: float = 1e-8
) -> Tensor:
    """m_hat / (sqrt(v_hat) + eps), both corrected for having begun at 0."""
    corrected = square / (1.0 - torch.pow(beta2, count))
    return (mean / (1.0 - torch.pow(beta1, count))) / (corrected.sqrt() + epsilon)
