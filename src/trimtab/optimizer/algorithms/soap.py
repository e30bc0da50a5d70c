"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trimtab.optimizer.algorithms.adam import adam, adam_direction
from trimtab.optimizer.algorithms.rule import Now, Rule, State


def soap(
    beta1: float = 0.95,
    beta2: float = 0.95,
    epsilon: float = 1e-8,
    *,
    basis_every: int = 10,
    max_side: int = 4096,
) -> Rule:
    """theta - a * l * theta - a * Q_L N Q_R^T, where N is Adam's direction for Q_L^T G Q_R, for matrices; AdamW else.

    Q_L and Q_R are eigenvectors of running averages of G G^T and G^T G: found whole from the first gradient, and then
    every `basis_every` updates by one step of orthogonal iteration, their columns and the second moments of these in
    the order of their eigenvalues. A side longer than `max_side` keeps its own basis.
    Waits for the device in every update, as it must know whether the basis is due.
    Source: Vyas et al. 2024, arXiv 2409.11321, algorithm 3; bias correction and decoupled decay as in AdamW. The first
    gradient is used, which the authors' code leaves out.
    """
    plain = adam(beta1, beta2, epsilon, decoupled=True)

    def begin(weight: Tensor) -> State:
        state = plain.begin(weight)
        if weight.ndim == 2:
            for side, size in zip(("left", "right"), weight.shape, strict=True):
                if size <= max_side:
                    state[side] = torch.zeros(size, size, dtype=weight.dtype, device=weight.device)
                    state[f"{side}_basis"] = torch.zeros_like(state[side])
        return state

    def step(weight: Tensor, gradient: Tensor, state: Mapping[str, Tensor], now: Now) -> tuple[Tensor, State]:
        if weight.ndim != 2:
            return plain.step(weight, gradient, state, now)
        count, kept, exp_avg_sq = int(now.count), dict(state), state["exp_avg_sq"]
        for axis, (side, outer) in enumerate((("left", gradient @ gradient.T), ("right", gradient.T @ gradient))):
            if side not in state:
                continue
            kept[side] = state[side].lerp(outer, 1.0 - beta2)
            if count == 1:
                # The largest first, as orthogonal iteration has them: so a column goes on as the same direction.
                kept[f"{side}_basis"] = torch.linalg.eigh(outer).eigenvectors.flip(1)
            elif count % basis_every == 0:
                basis = state[f"{side}_basis"]
                order = (basis * (kept[side] @ basis)).sum(0).argsort(descending=True, stable=True)
                kept[f"{side}_basis"] = torch.linalg.qr(kept[side] @ basis[:, order]).Q
                exp_avg_sq = exp_avg_sq.index_select(axis, order)
        left, right = kept.get("left_basis"), kept.get("right_basis")
        kept["exp_avg"] = state["exp_avg"].lerp(gradient, 1.0 - beta1)
        kept["exp_avg_sq"] = exp_avg_sq.lerp(_turned(gradient, left, right).square(), 1.0 - beta2)
        mean = _turned(kept["exp_avg"], left, right)
        direction = adam_direction(mean, kept["exp_avg_sq"], now.count, beta1, beta2, epsilon)
        back = _turned(direction, None if left is None else left.T, None if right is None else right.T)
        return weight * (1.0 - now.rate * now.decay) - now.rate * back, kept

    return Rule(begin, step, elementwise=False)


def _turned(matrix: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    """left^T matrix right; a side without a basis stays as it is."""
    matrix = matrix if left is None else left.T @ matrix
    return matrix if right is None else matrix @ right
