"""The estimate of the curvature that some optimizers ask for, from its own pass to the update that uses it."""

from __future__ import annotations

from typing import final

from torch import Tensor

from trimtab.optimizer.storage import FlatStorage


@final
class Curvature:
    """B * g * g, where g is the gradient of the mean loss of B targets that were drawn from the model itself.

    In steps 1, 1 + every, … the step leaves such a gradient in the storage before that of the update. Four bytes a
    parameter are held from `take` to the update. Source: Liu et al. 2023, arXiv 2305.14342, algorithm 2 (Gauss, Newton
    and Bartlett).
    """

    def __init__(self, storage: FlatStorage, every: int) -> None:
        self.every, self._storage = every, storage
        self._estimate: Tensor | None = None

    def is_due(self, step: int) -> bool:
        """Whether attempted update number `step`, counted from 1, begins with an estimate."""
        return (step - 1) % self.every == 0

    def take(self, scale: Tensor, count: Tensor) -> None:
        """The gradient in the storage, times `scale`, is that of `count` drawn targets: 0-dim tensors."""
        gradient = self._storage.flat_gradient.float() * scale
        self._estimate = gradient.square_().mul_(count)

    def hand_over(self) -> Tensor | None:
        """The estimate since the last call, as flat as the storage, or None; it is forgotten here."""
        estimate, self._estimate = self._estimate, None
        return estimate
