"""What is added to the embeddings of a micro-batch, and the steps that make it worse for the model.

Shape suffixes: B texts · T positions · D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

_LEAST = 1e-30
"""Below it a gradient counts as none: padding has none."""


@final
class Perturbation:
    """A leaf [B, T, D] for each text that the model reads, 0 until it is moved; norms are of a text, not of a batch.

    So a text's perturbation does not depend on which texts are beside it, and micro-batches add up to the batch.
    """

    def __init__(self, deltas: Sequence[Tensor] = ()) -> None:
        self.deltas = [delta.detach().requires_grad_() for delta in deltas]

    def __call__(self, embeddings_BTD: Tensor, number: int) -> Tensor:
        """The embeddings of text `number` with what is added; fp32, or wider, until they are added."""
        if number == len(self.deltas):
            kind = torch.promote_types(embeddings_BTD.dtype, torch.float32)
            self.deltas.append(torch.zeros_like(embeddings_BTD, dtype=kind).requires_grad_())
        return embeddings_BTD + self.deltas[number].to(embeddings_BTD.dtype)

    def gradients(self) -> list[Tensor]:
        """What backward left at the leaves; 0 at one that the loss does not depend on."""
        return [torch.zeros_like(one) if one.grad is None else one.grad for one in self.deltas]

    def moved(self, gradients: Sequence[Tensor], step: float, radius: float) -> Perturbation:
        """Each text's leaf after a step of length `step` along its gradient, then shortened to at most `radius`."""
        with torch.no_grad():
            pairs = zip(self.deltas, gradients, strict=True)
            return Perturbation([within(delta + step * unit(slope), radius) for delta, slope in pairs])


def unit(x_BTD: Tensor) -> Tensor:
    """Each text's tensor divided by its 2-norm; 0 stays 0."""
    return x_BTD / norms(x_BTD).clamp_min(_LEAST)


def within(x_BTD: Tensor, radius: float) -> Tensor:
    """Each text's tensor, projected onto the ball of `radius` around 0."""
    return x_BTD * (radius / norms(x_BTD).clamp_min(_LEAST)).clamp_max(1.0)


def norms(x_BTD: Tensor) -> Tensor:
    """2-norm of each text, [B, 1, 1]."""
    found: Tensor = torch.linalg.vector_norm(x_BTD, dim=(1, 2), keepdim=True)
    return found
