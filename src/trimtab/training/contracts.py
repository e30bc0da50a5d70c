"""What the loop asks of those that keep what it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from trimtab.events import AlertRaised, CheckpointSaved, Event


class Recorder(Protocol):
    """Writes the record; unlike a monitor's, its failure ends the run."""

    def record(self, event: Event) -> None: ...

    def sync(self) -> None: ...


class Checkpoints(Protocol):
    """Saves and restores all that a run needs to go on."""

    def save(
        self, reason: str, *, background: bool, needed: bool, planned: bool
    ) -> Sequence[CheckpointSaved | AlertRaised]:
        """Begin to save, or save; gives what `finished` does. Where it is not `needed` it
        may fail; one that is not `planned` is none to go back to."""
        ...

    def finished(self, *, wait: bool = False) -> Sequence[CheckpointSaved | AlertRaised]:
        """The saves that were completed since the last call, with `wait` that under way, too; and what the disk
        refused."""
        ...

    def can_roll_back(self, before_step: int) -> bool:
        """Whether a whole checkpoint lies before `before_step`."""
        ...

    def announce_rollback(self, before_step: int, plan: Mapping[str, Any]) -> None:
        """Write down durably what a rollback is to keep, before its decision is in the record."""
        ...

    def roll_back(self) -> int:
        """Go back as announced; gives the step of the checkpoint that was restored."""
        ...

    def restore_best(self) -> int:
        """Put the best checkpoint's weights into the model; gives its step."""
        ...


class Gauge(Protocol):
    """Measures beside the steps, and adds to the values of their windows."""

    def close(self, num_steps: int, seconds: float, tokens: float) -> Callable[[], Mapping[str, float]]:
        """What was measured since the last call: the window that ends has so many steps, which took so many seconds
        for so many targets. What it gives is called once the device has passed the window's end."""
        ...


class Profiler(Protocol):
    """Looks into some steps. What it does is told later, and costs none of a step's time."""

    def before(self, step: int) -> float:
        """Begin where `step` is to be looked into; gives the seconds that it took."""
        ...

    def after(self, step: int) -> float:
        """End where `step` was the last; gives the seconds that it took."""
        ...

    def events(self) -> Sequence[Event]:
        """What is to be told of those that are complete, once."""
        ...
