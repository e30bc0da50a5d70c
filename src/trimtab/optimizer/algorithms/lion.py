"""Lion: the sign of an interpolated momentum."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trimtab.optimizer.algorithms.rule import Now, Rule, State


def lion(beta1: float = 0.9, beta2: float = 0.99) -> Rule:
    """theta - a * (sign(b1 * m + (1 - b1) * g) + l * theta); m <- b2 * m + (1 - b2) * g.

    Source: Chen et al. 2023, arXiv 2302.06675, algorithm 2.
    """

    def begin(weight: Tensor) -> State:
        return {"exp_avg": torch.zeros_like(weight)}

    def step(weight: Tensor, gradient: Tensor, state: Mapping[str, Tensor], now: Now) -> tuple[Tensor, State]:
        direction = state["exp_avg"].lerp(gradient, 1.0 - beta1).sign()
        moved = weight - now.rate * (direction + now.decay * weight)
        return moved, {"exp_avg": state["exp_avg"].lerp(gradient, 1.0 - beta2)}

    return Rule(begin, step)
