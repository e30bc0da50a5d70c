"""Inline probes: what is read in every step, inside it, without waiting for the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from trimtab.signals.transform import Gradients


@dataclass(frozen=True, slots=True)
class StepSignals:
    """What a step has at hand when it is over."""

    gradients: Gradients
    weights: Mapping[str, Tensor]
    """Parameter name to fp32 weight, after the update."""
    model: Mapping[str, Tensor]
    """The named scalars that the model gave, averaged over the micro-batches."""


class InlineProbe(Protocol):
    """Reads named values of a step into the device ring."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The metric of each value, `layer/<name>/<metric>`."""
        ...

    @property
    def only_at_window_end(self) -> bool:
        """True for what is read at the last step of a window alone, because only its last value is kept."""
        ...

    def read(self, signals: StepSignals) -> Tensor:
        """One fp32 value a column, on the device."""
        ...


class RememberingProbe(InlineProbe, Protocol):
    """Compares steps. What it remembers is kept by checkpoints; a step that is skipped leaves it."""

    @property
    def name(self) -> str:
        """The key of its state in a checkpoint."""
        ...

    def follow(self, gradients: Mapping[str, Tensor]) -> None:
        """From now on a step has these, in other memory, and others where parameters were unfrozen."""
        ...

    def state_by_name(self) -> dict[str, Tensor]:
        """What it remembers between steps."""
        ...

    def load_state_by_name(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` says; empty: as new."""
        ...


class PartsProbe(RememberingProbe, Protocol):
    """Looks besides at what each micro-batch adds to a step's gradient.

    `part` and `whole` run between the step's two programs and never inside them; `settle` runs inside the update.
    """

    def measures(self, step: int) -> bool:
        """Whether step number `step` is looked at: a pure function of the step."""
        ...

    def part(self, gradients: Mapping[str, Tensor], *, first: bool) -> None:
        """A micro-batch was added to the sums `gradients`, which are fp32; `first` for the first of a step."""
        ...

    def whole(self, gradients: Mapping[str, Tensor], parts: int, sequences: int, unscale: Tensor) -> None:
        """All `parts` micro-batches, of `sequences` sequences in all, are in; `unscale` takes out the loss scale."""
        ...

    def settle(self, skip: Tensor) -> None:
        """Remember what was seen, unless `skip` is 1.0 or there is nothing new."""
        ...
