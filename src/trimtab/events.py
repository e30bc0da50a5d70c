"""What happens in a run, as host values; who may look at it, and who may ask for a change.

A `Monitor` only looks. A `Controller` answers an event with a `Decision` or None; what it answers to a RunStarted, or
to a DecisionTaken of its own, is not asked for. At an event every
controller is asked first, then the loop acts in a fixed order: adjust, rollback, evaluate, save, stop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """An attempt begins: `step` updates are already done."""

    step: int
    attempt: int
    """1 for the first process of a run; each resume adds one."""
    branch: int
    """The line of history that this attempt writes; a resume or rollback opens the next."""
    resumed_from: int | None
    """The step of the checkpoint that it goes on from."""
    total_steps: int
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepsEnded:
    """One window: steps `first_step` to `last_step`, counted from 1, both included.

    It is delivered at the end of the next window, so that nothing waits for the device, or before a planned evaluation.
    """

    first_step: int
    last_step: int
    per_step: Mapping[str, FloatArray]
    """Metric name to one value a step."""
    values: Mapping[str, float]
    """Metric name to one value for the window."""
    layers: Mapping[str, float] = field(default_factory=dict)
    """`layer/<name>/<metric>` to its value reduced over the window."""


@dataclass(frozen=True, slots=True)
class EvaluationEnded:
    """One round of evaluation: all sets, all variants of the weights, after `step` updates."""

    step: int
    metrics: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values lie in each of equally wide bins between `low` and `high`."""

    low: float
    high: float
    counts: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ExaminationEnded:
    """What a pass over the probe batch showed of the model after `step` updates."""

    step: int
    metrics: Mapping[str, float]
    """`probe/<metric>` to its value for the whole model."""
    seconds: float
    layers: Mapping[str, float] = field(default_factory=dict)
    """`layer/<name>/<metric>` to its value."""
    histograms: Mapping[str, Histogram] = field(default_factory=dict)
    """`layer/<name>/<what>` to how its values are spread."""
    samples: tuple[Mapping[str, Any], ...] = ()
    """Single samples, as JSON values, without their text."""


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A checkpoint is complete and verified on disk."""

    step: int
    path: str
    """Relative to the run directory."""
    bytes: int
    seconds: float
    """From the copy of the state until it was verified."""
    reason: str
    stall_seconds: float = 0.0
    """Of these, how long training stood still."""
    shared_bytes: int = 0
    """Of the bytes, those that an earlier checkpoint had written, and that are on the disk once."""


@dataclass(frozen=True, slots=True)
class FindingsChanged:
    """What the doctor found that is new, or graver than before: each as the contract's JSON."""

    step: int
    findings: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class AlertRaised:
    """Something went wrong that the run got over, or was told to pass over; "rule": a rule of `alerts` was met."""

    step: int
    """The boundary at which it is told."""
    kind: Literal["non_finite_step", "outlying_step", "write_failed", "examination_failed", "volume_capped", "rule"]
    text: str
    details: Mapping[str, Any] = field(default_factory=dict)
    """JSON values; of a step `step`, `loss`, `grad_norm`, `positions` and `samples`."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End the run."""

    reason: str
    restore_best: bool = False
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Save:
    """Write a checkpoint at this boundary."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rollback:
    """Go back to the newest verified checkpoint before `onset_step`, leaving out the data of some steps."""

    reason: str
    onset_step: int
    """The first step that must not be kept; the checkpoint lies before it."""
    exclude_steps: tuple[tuple[int, int], ...] = ()
    """Ranges of steps (both included) whose samples are left out when training goes on."""
    to_the_newest: bool = False
    """Whether the last range reaches to the newest step, beyond what was told."""
    learning_rate: float | None = None
    """The factor on the learning rate from there on; None: as it is."""
    code: str = ""
    """The doctor's code for what it undoes."""

    def left_out(self, newest_step: int) -> tuple[tuple[int, int], ...]:
        """The ranges of steps whose samples are left out, decided after `newest_step`."""
        if not (self.to_the_newest and self.exclude_steps):
            return self.exclude_steps
        *others, (first, last) = self.exclude_steps
        return (*others, (first, max(last, newest_step)))


@dataclass(frozen=True, slots=True)
class Adjust:
    """Change one entry of `ADJUSTABLE`: a factor for a setting, a value for a structure."""

    reason: str
    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Run a round of evaluation at this boundary."""

    reason: str


@dataclass(frozen=True, slots=True)
class Advise:
    """Show a finding; nothing is changed."""

    reason: str
    finding: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[tuple[int, int], ...] = ()
    """Ranges of steps (both included) that it is about, whose samples are to be named."""


Decision = Stop | Save | Rollback | Adjust | Evaluate | Advise


@dataclass(frozen=True, slots=True)
class DecisionTaken:
    """What a controller (or a person) asked for, and what came of it."""

    step: int
    """The boundary where it takes effect."""
    observed_until_step: int
    """The newest step whose values the controller had seen."""
    controller: str
    decision: Decision
    outcome: Literal["taken", "overruled"] = "taken"
    note: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Of a decision about steps, JSON values: `positions` in the data, as ranges without their ends, and `samples`."""


@dataclass(frozen=True, slots=True)
class ArtifactLogged:
    """A sample, picture, histogram or text."""

    step: int
    kind: Literal["sample", "picture", "histogram", "text"]
    name: str
    text: str = ""
    path: str | None = None
    """Relative to the run directory, when it is a file."""


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The end of an attempt."""

    step: int
    status: Literal["finished", "stopped", "interrupted", "failed"]
    reason: str
    best_step: int | None
    best_value: float | None
    restored_step: int | None
    """The step whose weights the model was left with, when not the last."""
    seconds: float
    time_split: Mapping[str, float] = field(default_factory=dict)
    """Seconds by cause: training, data, evaluation, checkpoint, start …"""


Event = (
    RunStarted
    | StepsEnded
    | EvaluationEnded
    | ExaminationEnded
    | CheckpointSaved
    | FindingsChanged
    | AlertRaised
    | DecisionTaken
    | ArtifactLogged
    | RunEnded
)


class Monitor(Protocol):
    """Looks at a run; what it raises is a warning and never stops the run."""

    def observe(self, event: Event) -> None:
        """Take note of `event`."""
        ...


class Controller(Protocol):
    """Steers a run from what it observes. All it remembers is in its state, which checkpoints keep."""

    @property
    def name(self) -> str:
        """Unique in a run; the key of its state in a checkpoint."""
        ...

    def decide(self, event: Event) -> Decision | None:
        """What to change at this boundary, or None."""
        ...

    def state(self) -> dict[str, Any]:
        """All it remembers, as JSON values."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` says."""
        ...
