"""Adafactor: second moments as one row and one column of each matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from trimtab.optimizer.algorithms.rule import Now, Rule, State


def adafactor(beta2_power: float = -0.8, epsilon: float = 1e-3, threshold: float = 1.0) -> Rule:
    """theta - alpha * u / max(1, RMS(u) / d), where u = g / sqrt(v), v = r c / mean(r), and
    alpha = max(eps, RMS(theta)) * min(a, 1 / sqrt(t)); vectors keep their squares whole.

    The weight decay is decoupled. Source: Shazeer and Stern 2018, arXiv 1804.04235, algorithms 4 and 5, without
    momentum; as in torch, r and c are means, and no constant is added to the squares.
    """

    def begin(weight: Tensor) -> State:
        if weight.ndim < 2:
            return {"square": torch.zeros_like(weight)}
        return {
            "row": torch.zeros_like(weight[..., :1]),
            "column": torch.zeros_like(weight[..., :1, :]),
        }

    def step(weight: Tensor, gradient: Tensor, state: Mapping[str, Tensor], now: Now) -> tuple[Tensor, State]:
        tiny = torch.finfo(weight.dtype).eps
        new = torch.pow(now.count, beta2_power).to(weight.dtype)
        rate = torch.minimum(now.rate, now.count.rsqrt().to(weight.dtype)) * _rms(weight).clamp_min(epsilon)
        squares = gradient.square()
        kept: State
        if weight.ndim < 2:
            kept = {"square": state["square"].lerp(squares, new)}
            estimate = kept["square"]
        else:
            row = state["row"].lerp(squares.mean(-1, keepdim=True), new)
            column = state["column"].lerp(squares.mean(-2, keepdim=True), new)
            kept = {"row": row, "column": column}
            estimate = (row @ column) / row.mean(-2, keepdim=True).clamp_min(tiny)
        update = gradient * estimate.clamp_min(tiny * tiny).rsqrt()
        update = update / (_rms(update) / threshold).clamp_min(1.0)
        return weight * (1.0 - now.rate * now.decay) - rate * update, kept

    return Rule(begin, step, elementwise=False)


def _rms(tensor: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(tensor) / math.sqrt(tensor.numel())
    return size
