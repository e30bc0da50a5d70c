"""What gradient transforms see and change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor


@dataclass(slots=True)
class Gradients:
    """The gradient of one update, reduced and averaged; all values stay on the device.

    What acts on the whole gradient alike does not touch the tensors: it sets `scale` and `skip`, which the optimizer
    applies in its one pass over the state.
    """

    by_name: Mapping[str, Tensor]
    """Parameter name to its gradient; times `scale` it is what the optimizer sees, the loss scale of fp16 taken out."""
    norms_P: Tensor
    """2-norm of each, in the order of `by_name`, without the loss scale."""
    total_norm: Tensor
    """2-norm of the whole, without the loss scale; not finite when any value is not."""
    scale: Tensor
    """0-dim: the factor that the optimizer multiplies the gradient with."""
    skip: Tensor
    """0-dim, 0.0 or 1.0: at 1.0 the update changes nothing."""
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    """fp32 master weights, in the same order; to look at."""
    unscale: Tensor | None = None
    """0-dim: what `scale` began as; None is 1."""
    clipped_P: Tensor | None = None
    """As `norms_P`, after what changed the tensors themselves and before `scale`; None where nothing did."""


class GradientTransform(Protocol):
    """Changes gradients before the update, on the device, in the order configured; state is kept by checkpoints."""

    @property
    def name(self) -> str:
        """Unique among the transforms of a run."""
        ...

    def apply(self, gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        """Change `gradients` in place; `settings` are the step's device scalars."""
        ...

    def state_by_name(self) -> dict[str, Tensor]:
        """What it remembers between steps."""
        ...

    def load_state_by_name(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` says."""
        ...
