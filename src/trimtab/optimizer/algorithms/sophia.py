"""Sophia-G: momentum over a diagonal of the curvature, with every value of the update clipped."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trimtab.optimizer.algorithms.rule import Now, Rule, State


def sophia(
    beta1: float = 0.96,
    beta2: float = 0.99,
    gamma: float = 0.05,
    epsilon: float = 1e-12,
    *,
    estimate_every: int = 10,
) -> Rule:
    """theta - a * l * theta - a * clip(m / max(gamma * h, eps), 1), where h averages the estimates of the curvature.

    An estimate that is not finite leaves h as it is; before the first one an update is the sign of m.
    Source: Liu et al. 2023, arXiv 2305.14342, algorithm 3, with the estimator of algorithm 2 (`Curvature`).
    """

    def begin(weight: Tensor) -> State:
        return {"exp_avg": torch.zeros_like(weight), "curvature": torch.zeros_like(weight)}

    def step(weight: Tensor, gradient: Tensor, state: Mapping[str, Tensor], now: Now) -> tuple[Tensor, State]:
        mean, curvature = state["exp_avg"].lerp(gradient, 1.0 - beta1), state["curvature"]
        if now.estimate is not None:
            newest = torch.where(torch.isfinite(now.estimate), now.estimate, curvature)
            curvature = curvature.lerp(newest, 1.0 - beta2)
        direction = (mean / (gamma * curvature).clamp_min(epsilon)).clamp(-1.0, 1.0)
        moved = weight * (1.0 - now.rate * now.decay) - now.rate * direction
        return moved, {"exp_avg": mean, "curvature": curvature}

    return Rule(begin, step, estimates_every=estimate_every)
