"""What the step and the checkpoints ask of an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor

from trimtab.optimizer.curvature import Curvature
from trimtab.optimizer.parameter_groups import ParameterGroup
from trimtab.optimizer.storage import Storage
from trimtab.signals import Gradients

Rehearsal = Callable[[Gradients, Mapping[str, Tensor]], None]
"""Takes the memory that an update takes with these gradients and settings, and changes nothing."""


class Optimizer(Protocol):
    """Owns the storage of a model's parameters, and updates it."""

    @property
    def storage(self) -> Storage:
        """Weights and gradients by name."""
        ...

    @property
    def groups(self) -> Sequence[ParameterGroup]:
        """The parameters, by what they share."""
        ...

    def update(self, gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        """One update; with `gradients.skip` at 1 nothing changes."""
        ...

    def rehearsal(self) -> AbstractContextManager[Rehearsal]:
        """Inside, updates can be rehearsed, and what the first one allocates stays allocated from then on.

        What is held besides, so that all is as before at the end, is held from the beginning.
        """
        ...

    def state_by_name(self) -> dict[str, dict[str, Tensor]]:
        """Parameter name to slot to tensor: all that resuming needs besides the weights."""
        ...

    def load_state_by_name(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Become what `state` says."""
        ...

    @property
    def curvature(self) -> Curvature | None:
        """What takes estimates of the curvature, where the optimizer asks for them."""
        ...

    @property
    def averages(self) -> bool:
        """Whether the weights to be judged are others than those that are trained."""
        ...

    def evaluation_weights(self) -> AbstractContextManager[None]:
        """Inside, the model holds the weights to be judged; afterwards it has its own, to the bit."""
        ...
