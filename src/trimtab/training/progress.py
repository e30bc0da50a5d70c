"""Where a run stands: everything that the loop counts, as JSON values."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, final


@final
@dataclass(slots=True)
class Progress:
    """Kept whole in every checkpoint."""

    step: int = 0
    """Updates attempted."""
    position: int = 0
    """Samples consumed, in the order of the data plan."""
    tokens: int = 0
    """Targets counted."""
    branch: int = 0
    attempt: int = 0
    accumulation: int = 1
    """Micro-batches in an update, which a controller may change."""
    micro_batch_size: int = 1
    """Sequences in each, which may be lowered where memory ran out."""
    configured_batch: int = 0
    """Sequences in an update as the configuration had it, whatever a controller made of it; 0 where it is not known."""
    optimizer: int = 0
    """Which of the run's optimizers trains."""
    factors: dict[str, dict[str, float]] = field(default_factory=dict)
    """Setting to controller to factor."""
    plan: dict[str, Any] = field(default_factory=lambda: {"excluded": []})
    """The data plan: which positions are left out."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The newest evaluation's."""
    metrics_step: int = 0
    best_step: int | None = None
    best_value: float | None = None
    best_metric: str | None = None
    """What that is a value of; None where an older checkpoint does not say."""
    stop: dict[str, Any] | None = None
    """The decision to stop, taken at the boundary of this checkpoint."""
    strides: list[list[int]] = field(default_factory=list)
    """[step, position before it, samples a step], from where that changed: what a rollback leaves out."""
    untold: list[dict[str, Any]] = field(default_factory=list)
    """Saves in the record that controllers hear of at the next evaluation: the fields of CheckpointSaved."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time spent by cause, over all attempts whose work survives."""

    def factor(self, setting: str) -> float:
        """The product of all controllers' factors on `setting`."""
        product = 1.0
        for value in self.factors.get(setting, {}).values():
            product *= value
        return product

    def divide(self, micro_batch_size: int, largest_batch: int | None = None) -> None:
        """Let a step have as many sequences as before, in micro-batches of another size.

        Rounded up to whole micro-batches, or down where that would pass `largest_batch`.
        """
        parts = math.ceil(self.accumulation * self.micro_batch_size / micro_batch_size)
        if largest_batch is not None:
            parts = max(1, min(parts, largest_batch // micro_batch_size))
        self.accumulation, self.micro_batch_size = parts, micro_batch_size

    def advance(self, next_position: int, tokens: int) -> None:
        """One more update was attempted, which consumed the data up to `next_position`."""
        step, stride = self.step + 1, next_position - self.position
        if not self.strides or self._position_before(step) != self.position or self.strides[-1][2] != stride:
            self.strides.append([step, self.position, stride])
        self.step, self.position = step, next_position
        self.tokens += tokens

    def positions_of(self, first_step: int, last_step: int) -> tuple[int, int]:
        """The range of positions, [start, end), that steps `first_step` to `last_step` consumed."""
        return self._position_before(first_step), self._position_before(last_step + 1)

    def _position_before(self, step: int) -> int:
        begun, position, stride = next(entry for entry in reversed(self.strides) if entry[0] <= step)
        return position + (step - begun) * stride

    def take_metrics(self, step: int, metrics: Mapping[str, float], selection: str, better: str) -> None:
        """Note an evaluation, and whether it is the best by the metric `selection`."""
        self.metrics, self.metrics_step = dict(metrics), step
        self.select(selection)
        value = metrics.get(selection, math.nan)
        if not math.isfinite(value):
            return
        if self.best_value is None or (value > self.best_value if better == "higher" else value < self.best_value):
            self.best_step, self.best_value = step, value

    def select(self, metric: str) -> None:
        """Let `metric` tell what is best: the best by another one is forgotten, as their values have no order."""
        if self.best_metric not in (None, metric):
            self.best_step = self.best_value = None
        self.best_metric = metric

    def spend(self, cause: str, seconds: float) -> None:
        """Book time."""
        self.seconds[cause] = self.seconds.get(cause, 0.0) + seconds

    def state(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` gave."""
        for entry in fields(self):
            if entry.name in state:  # older checkpoints have fewer
                setattr(self, entry.name, copy.deepcopy(state[entry.name]))
            elif entry.name in ("optimizer", "configured_batch"):
                setattr(self, entry.name, 0)
        # JSON holds non-finite values as text.
        self.metrics = {name: float(value) for name, value in self.metrics.items()}
