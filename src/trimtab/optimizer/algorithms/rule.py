"""What an algorithm is here: pure functions of one tensor, its gradient and its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

State = dict[str, Tensor]
"""Slot to tensor. A 0-dim slot belongs to all parameters that are updated in one call."""


@dataclass(frozen=True, slots=True)
class Now:
    """What an update is made with: 0-dim tensors, on the weights' device."""

    rate: Tensor
    """Learning rate of the group."""
    decay: Tensor
    """Weight decay of the group."""
    count: Tensor
    """Updates applied, this one included; fp64, so that beta^count keeps its digits."""
    estimate: Tensor | None = None
    """An estimate of the curvature, in the weight's shape, for a rule that asks for one and in the steps that make it;
    it need not be finite."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One algorithm. Its functions change none of their arguments; what they return is written, or on a skip is not.

    They wait for the device only where the registry does not call them capturable.
    """

    begin: Callable[[Tensor], State]
    """A weight before its first update -> its state."""
    step: Callable[[Tensor, Tensor, Mapping[str, Tensor], Now], tuple[Tensor, State]]
    """(weight, gradient, state, now) -> new weight, new state. The gradient is finite and in the weight's precision."""
    elementwise: bool = True
    """Whether neighbours do not matter, so that many parameters may come as one vector."""
    takes_stacks: bool = False
    """Whether many parameters of one shape may come stacked, [P, ...], which is quicker; for one that is not
    elementwise."""
    evaluated: Callable[[Tensor, Mapping[str, Tensor]], Tensor] | None = None
    """(weight, state) -> the weight to be judged; None where that is the one that is trained."""
    estimates_every: int = 0
    """Steps from one estimate of the curvature to the next; 0: none is asked for."""
