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
