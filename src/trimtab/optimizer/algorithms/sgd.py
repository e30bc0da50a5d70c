"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trimtab.optimizer.algorithms.rule import Now, Rule, State


def sgd(momentum: float = 0.9, *, nesterov: bool = False) -> Rule:
    """b <- mu * b + g; theta - a * b, or with `nesterov` theta - a * (g + mu * b). Weight decay is an L2 penalty.

    Source: Sutskever et al. 2013, section 2, in torch's form: the rate is outside the momentum, without dampening.
    """

    def begin(weight: Tensor) -> State:
        return {"momentum": torch.zeros_like(weight)} if momentum else {}

    def step(weight: Tensor, gradient: Tensor, state: Mapping[str, Tensor], now: Now) -> tuple[Tensor, State]:
        gradient = gradient + now.decay * weight
        if not momentum:
            return weight - now.rate * gradient, {}
        moved = momentum * state["momentum"] + gradient
        direction = gradient + momentum * moved if nesterov else moved
        return weight - now.rate * direction, {"momentum": moved}

    return Rule(begin, step)
