"""Muon: momentum whose singular values are all made about 1."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal

import torch
from torch import Tensor

from trimtab.optimizer.algorithms.rule import Now, Rule, State

_COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)


def muon(
    momentum: float = 0.95,
    *,
    nesterov: bool = True,
    iterations: int = 5,
    scaling: Literal["adamw", "shape"] = "adamw",
    dtype: torch.dtype | None = None,
) -> Rule:
    """theta - a * l * theta - a * s * orthogonalized(momentum), for matrices [.., R, C].

    With `scaling` "adamw", s = 0.2 sqrt(longer side), which makes an update as large as AdamW's; with "shape",
    s = sqrt(max(1, rows / columns)). `dtype` is what is orthogonalized in: None is bf16 on a GPU, else the weight's.
    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; Liu et al. 2025,
    arXiv 2502.16982, section 2.2 for s and the weight decay. The momentum is an average, as in torch.
    """

    def begin(weight: Tensor) -> State:
        return {"momentum": torch.zeros_like(weight)}

    def step(weight: Tensor, gradient: Tensor, state: Mapping[str, Tensor], now: Now) -> tuple[Tensor, State]:
        average = state["momentum"].lerp(gradient, 1.0 - momentum)
        direction = gradient.lerp(average, momentum) if nesterov else average
        computed_in = dtype or (torch.bfloat16 if weight.is_cuda else weight.dtype)
        update = orthogonalized(direction.to(computed_in), iterations).to(weight.dtype)
        rows, columns = weight.shape[-2:]
        size = 0.2 * math.sqrt(max(rows, columns)) if scaling == "adamw" else math.sqrt(max(1.0, rows / columns))
        return weight * (1.0 - now.rate * now.decay) - now.rate * size * update, {"momentum": average}

    return Rule(begin, step, elementwise=False, takes_stacks=True)


def orthogonalized(matrix: Tensor, iterations: int = 5) -> Tensor:
    """`matrix` [.., R, C] with its singular values brought near 1, by iterations of a polynomial of degree five.

    The polynomial is 3.4445 x - 4.7750 x^3 + 2.0315 x^5. Five iterations bring values from 0.002 of the matrix's norm
    on to between 0.68 and 1.21; far smaller ones become 485 times as large. Source: Jordan et al. 2024.
    """
    a, b, c = _COEFFICIENTS
    flipped = matrix.shape[-2] > matrix.shape[-1]
    x = (matrix.mT if flipped else matrix).reshape(-1, *sorted(matrix.shape[-2:]))
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp_min(1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if flipped else x).reshape(matrix.shape)
