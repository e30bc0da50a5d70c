"""Examinations: what is read every so many steps, from a forward and backward pass of its own on a fixed probe batch.

The pass is eager and in eval mode, and leaves no trace: gradients go into tensors of their own, buffers and generators
are put back. So an examination may look at anything; what it may not do is write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from trimtab.events import Histogram
from trimtab.signals.batch import Batch
from trimtab.signals.task import ModelOutput, Task


@dataclass(frozen=True, slots=True)
class Examined:
    """A model as it stands, and a pass over the probe batch; all tensors are on the device, and none is to be changed.

    What hooks saw during the pass is with the examination that attached them.
    """

    step: int
    """Updates attempted."""
    model: nn.Module
    task: Task
    batch: Batch
    output: ModelOutput | Tensor
    """As the task gets it, detached."""
    losses: Tensor
    """The plain loss of each target, in the shape of the targets: fp32; 0 where nothing is counted."""
    loss: Tensor
    """0-dim: the objective's total, whose gradient was taken."""
    gradients: Mapping[str, Tensor]
    """Parameter name to the gradient of `loss`: fp32, zeros where it has none."""
    weights: Mapping[str, Tensor]
    """Parameter name to fp32 weight, in the same order."""
    newest: Callable[[], Iterable[tuple[Batch, Tensor]]]
    """Judges samples of the newest step: batches with the plain loss of each target."""
    text: Callable[[Sequence[int]], str]
    """Tokens as text."""


@dataclass(slots=True)
class Readings:
    """What an examination found. Values may stay on the device: those of all examinations are fetched together."""

    metrics: dict[str, Tensor | float] = field(default_factory=dict)
    """`probe/<metric>` to a 0-dim value of the whole model; a row of METRICS each."""
    layers: dict[str, Tensor | float] = field(default_factory=dict)
    """`layer/<name>/<metric>` to a 0-dim value; a row of METRICS for each `layer/<name>/<metric>`."""
    histograms: dict[str, Histogram] = field(default_factory=dict)
    """`layer/<name>/<what>` to a histogram."""
    samples: list[Mapping[str, Any]] = field(default_factory=list)
    """JSON values about single samples, without their text."""
    texts: dict[str, str] = field(default_factory=dict)
    """Name to a text that is logged as a sample; whoever hides samples hides these, too."""

    def take(self, other: Readings) -> None:
        """Add what another examination found."""
        self.metrics |= other.metrics
        self.layers |= other.layers
        self.histograms |= other.histograms
        self.samples += other.samples
        self.texts |= other.texts


class Examination(Protocol):
    """Reads a pass over the probe batch. Its card is in `config/registry/examinations.py`."""

    @property
    def name(self) -> str:
        """As in the registry; the key of its state in a checkpoint."""
        ...

    def attach(self, model: nn.Module) -> AbstractContextManager[None]:
        """Inside, it looks at the pass: hooks, which are gone afterwards. `nullcontext()` for one that needs none."""
        ...

    def read(self, examined: Examined) -> Readings:
        """What it finds; called after the pass, without gradients."""
        ...


@runtime_checkable
class FollowingExamination(Examination, Protocol):
    """Compares a model with what it was before. What it remembers is kept by checkpoints.

    Its state is replaced, never changed in place: a checkpoint may still be reading it.
    """

    def begin(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """An attempt begins after `step` updates: take note of the weights, unless a checkpoint brought what is known
        of the start."""
        ...

    def before(self, weights: Mapping[str, Tensor]) -> None:
        """The step after which `read` is called is about to run."""
        ...

    def state_by_name(self) -> dict[str, Tensor]:
        """What it remembers from examination to examination; empty at first."""
        ...

    def load_state_by_name(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` says; empty: as new."""
        ...


def of_layers(metric: str, names: Sequence[str], values: Tensor) -> dict[str, Tensor | float]:
    """Readings `layer/<name>/<metric>` of `names` from a vector of as many values."""
    return {f"layer/{name}/{metric}": value for name, value in zip(names, values.unbind(), strict=True)}
