"""The estimate of the curvature that some optimizers ask for, from its own pass to the update that uses it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor

from trimtab.optimizer.storage import FlatStorage


@final
class Curvature:
    """B * g * g, where g is the gradient of the mean loss of B targets that were drawn from the model itself.

    In steps 1, 1 + every, …, and in an optimizer's first step, the step leaves such a gradient in the storage before
    that of the update. The next update that is not skipped uses it, once; until then it is held, four bytes a
    parameter, and belongs to the state. On a GPU, where the host does not know of a skip, that memory is held until the
    next estimate.
    Source: Liu et al. 2023, arXiv 2305.14342, algorithm 2 (Gauss, Newton and Bartlett).
    """

    def __init__(self, storage: FlatStorage, every: int) -> None:
        self.every, self._storage = every, storage
        self._estimate: Tensor | None = None
        self._is_unused = torch.zeros((), device=storage.flat_weight.device)
        self._has_begun = False
        self._on_host = storage.flat_weight.device.type == "cpu"

    def is_due(self, step: int) -> bool:
        """Whether attempted update number `step`, counted from 1, begins with an estimate."""
        return not self._has_begun or (step - 1) % self.every == 0

    def take(self, scale: Tensor, count: Tensor) -> None:
        """The gradient in the storage, times `scale`, is that of `count` drawn targets: 0-dim tensors."""
        gradient = self._storage.flat_gradient.float() * scale
        self._estimate = gradient.square_().mul_(count)
        self._is_unused.fill_(1.0)
        self._has_begun = True

    def newest(self) -> Tensor | None:
        """The estimate that no update has used, as flat as the storage; None, or no numbers in it, when there is none.

        Does not wait for a GPU.
        """
        if self._estimate is None or self._on_host:
            return self._estimate
        return torch.where(self._is_unused > 0, self._estimate, torch.nan)

    def settle(self, skip: Tensor) -> None:
        """An update came to its end; with `skip` at 1.0 it used nothing."""
        self._is_unused.mul_(skip)
        if self._on_host and not float(skip):
            self._estimate = None

    def unused(self) -> dict[str, Tensor]:
        """What an update has still to use, by parameter: for a checkpoint. Waits for the device."""
        is_held = self._estimate is not None and bool(self._is_unused)
        return self._storage.views(self._estimate) if is_held and self._estimate is not None else {}

    @torch.no_grad()
    def load(self, unused: Mapping[str, Tensor], *, has_begun: bool) -> None:
        """Become what `unused` gave; `has_begun` when an estimate was taken before."""
        self._has_begun = has_begun or bool(unused)
        self._is_unused.fill_(float(bool(unused)))
        self._estimate = torch.zeros_like(self._storage.flat_weight) if unused else None
        if self._estimate is not None:
            for name, view in self._storage.views(self._estimate).items():
                view.copy_(unused[name])

    @contextmanager
    def left_alone(self) -> Iterator[None]:
        """What is taken inside is forgotten at the end."""
        before = self._estimate, self._is_unused.clone(), self._has_begun
        try:
            yield
        finally:
            self._estimate, self._has_begun = before[0], before[2]
            self._is_unused.copy_(before[1])
