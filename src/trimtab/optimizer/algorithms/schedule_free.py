"""AdamW without a schedule: the weights to be judged are an average, which the gradients are taken near."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trimtab.optimizer.algorithms.rule import Now, Rule, State


def schedule_free_adamw(beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> Rule:
    """z <- z - a * (g / (sqrt(v_hat) + eps) + l * y); x <- (1 - c) x + c z; y <- (1 - b1) z + b1 x.

    The weight that is trained is y, the one to be judged x; c is the square of this step's rate over the sum of all.
    Only z is kept: x follows from y and z. Source: Defazio et al. 2024, arXiv 2405.15682, algorithm 1, where the bias
    correction of v stands in the rate.
    """

    def begin(weight: Tensor) -> State:
        return {
            "fast": weight.clone(),
            "exp_avg_sq": torch.zeros_like(weight),
            "sum_of_squares": torch.zeros((), dtype=weight.dtype, device=weight.device),
        }

    def evaluated(weight: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        return state["fast"] + (weight - state["fast"]) / beta1

    def step(weight: Tensor, gradient: Tensor, state: Mapping[str, Tensor], now: Now) -> tuple[Tensor, State]:
        square = state["exp_avg_sq"].lerp(gradient.square(), 1.0 - beta2)
        direction = gradient / ((square / (1.0 - torch.pow(beta2, now.count))).sqrt() + epsilon)
        total = state["sum_of_squares"] + now.rate.square()
        part = torch.where(total > 0, now.rate.square() / total, 0.0)
        moved = now.rate * (direction + now.decay * weight)
        # y by what changes in it, so that nothing is rounded where nothing moves.
        trained = weight - part * (weight - state["fast"]) - (1.0 - beta1 * (1.0 - part)) * moved
        return trained, {"fast": state["fast"] - moved, "exp_avg_sq": square, "sum_of_squares": total}

    return Rule(begin, step, evaluated=evaluated)
