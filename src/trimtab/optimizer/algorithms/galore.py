"""GaLore: Adam on a projection of each matrix's gradient, so that its moments are small."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trimtab.optimizer.algorithms.adam import adam, adam_direction
from trimtab.optimizer.algorithms.rule import Now, Rule, State


def galore(
    rank: int | float = 0.25,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    *,
    scale: float = 0.25,
    basis_every: int = 200,
) -> Rule:
    """theta - a * l * theta - a * s * P N, where N is Adam's direction for R = P^T G, for matrices; AdamW else.

    P holds the first `rank` singular vectors of the gradient, on its shorter side: of the first gradient, and then
    every `basis_every` updates of the newest. The moments stay as they are when P changes. What has no longer side
    than `rank` (`projected_rank`) is updated by AdamW, at the rate as it is.
    Waits for the device in every update, as it must know whether the projection is due.
    Source: Zhao et al. 2024, arXiv 2403.03507, algorithm 2; the decoupled decay acts before the update, as in AdamW.
    """
    plain = adam(beta1, beta2, epsilon, decoupled=True)

    def begin(weight: Tensor) -> State:
        kept = projected_rank(weight.shape, rank)
        if kept is None:
            return plain.begin(weight)
        rows, columns = weight.shape
        small = (kept, columns) if rows <= columns else (rows, kept)
        moments = {slot: weight.new_zeros(small) for slot in ("exp_avg", "exp_avg_sq")}
        return {"projection": weight.new_zeros(min(rows, columns), kept), **moments}

    def step(weight: Tensor, gradient: Tensor, state: Mapping[str, Tensor], now: Now) -> tuple[Tensor, State]:
        if "projection" not in state:
            return plain.step(weight, gradient, state, now)
        projection = state["projection"]
        wide = weight.shape[0] <= weight.shape[1]
        if (int(now.count) - 1) % basis_every == 0:
            projection = principal(gradient if wide else gradient.T, projection.shape[1])
        small = projection.T @ gradient if wide else gradient @ projection
        mean = state["exp_avg"].lerp(small, 1.0 - beta1)
        square = state["exp_avg_sq"].lerp(small.square(), 1.0 - beta2)
        direction = adam_direction(mean, square, now.count, beta1, beta2, epsilon)
        whole = projection @ direction if wide else direction @ projection.T
        moved = weight * (1.0 - now.rate * now.decay) - now.rate * scale * whole
        return moved, {"projection": projection, "exp_avg": mean, "exp_avg_sq": square}

    return Rule(begin, step, elementwise=False)


def projected_rank(shape: torch.Size | tuple[int, ...], rank: int | float) -> int | None:
    """What a tensor of `shape` is projected to: `rank`, or that part of its shorter side; None: it is left whole."""
    if len(shape) != 2:
        return None
    shorter = min(shape)
    kept = max(1, round(rank * shorter)) if isinstance(rank, float) else rank
    return kept if kept < shorter else None


def principal(matrix: Tensor, rank: int) -> Tensor:
    """The left singular vectors of the `rank` largest singular values of `matrix`, [rows, rank]."""
    vectors: Tensor = torch.linalg.svd(matrix, full_matrices=False).U
    return vectors[:, :rank].contiguous()
