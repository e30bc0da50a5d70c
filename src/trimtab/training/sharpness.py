"""Sharpness-aware minimization: a step's gradient, taken where the weights would be worse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from trimtab.objective.procedures import ascent
from trimtab.signals import Batch, PartsProbe
from trimtab.training.gather import gather

if TYPE_CHECKING:
    from trimtab.training.step import Step


@final
class Sharpness:
    """Goes twice over the micro-batches of a step: for the step up, and, at the weights that it leads to, for the
    gradient of the update. Both draw the same. Then the weights are as before, to the bit.

    What is reported is of the first, at the weights themselves; running statistics are, too.
    Source: Foret et al. 2021, arXiv 2010.01412, algorithm 1; Kwon et al. 2021, arXiv 2102.11600.
    """

    def __init__(self, radius: float, *, adaptive: bool) -> None:
        self.radius, self.adaptive = radius, adaptive
        self._kept: list[Tensor] = []

    def prepare(self, weights: Sequence[Tensor]) -> None:
        """Take the memory for a copy of `weights`, unless it is there."""
        if [one.shape for one in self._kept] != [one.shape for one in weights]:
            self._kept = [torch.empty_like(weight) for weight in weights]

    def __call__(self, step: Step, batches: Sequence[Batch], number: int, looks: PartsProbe | None) -> None:
        """Leave the gradient of step `number`; `looks` is for the one that stays."""
        gather(step, batches, number, None)
        step.timer.mark("optimizer")
        storage = step.optimizer.storage
        weights = list(storage.weights.values())
        gradients = [storage.gradients[name] for name in storage.weights]
        step.wait_for_readers()  # a save may still read the weights
        self.prepare(weights)  # others where parameters were unfrozen
        sums = step.sums
        reported = [one.clone() for one in sums]
        with torch.no_grad():
            torch._foreach_copy_(self._kept, weights)
        try:
            with torch.no_grad():
                torch._foreach_add_(weights, ascent(weights, gradients, self.radius, adaptive=self.adaptive))
                storage.refresh()
                storage.zero_gradients(in_parts=len(batches) > 1 or step.adds)
            with step.passes.apart():
                gather(step, batches, number, looks)
        finally:  # where memory runs out, the step is tried again
            step.timer.mark("optimizer")
            with torch.no_grad():
                torch._foreach_copy_(weights, self._kept)
                storage.refresh()
                torch._foreach_copy_(sums, reported)
