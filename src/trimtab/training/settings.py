"""What each step is set to: rates, weight decay and clipping, by schedules and the controllers' factors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import final

from trimtab.schedules import Schedule


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """A setting is its configured value, times its schedule's factor, times one factor a controller."""

    schedule: Schedule
    learning_rate: float
    clip_threshold: float
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    """Of groups that do not follow the run's, by pattern."""
    decay_schedule: Schedule | None = None
    """Of the weight decay; None: always the same."""

    def rates(self, step: int, factor: Callable[[str], float]) -> dict[str, float]:
        """`learning_rate`, and `learning_rate/<pattern>`, at `step`, counted from 0; `factor` is the controllers'."""
        curves = {"learning_rate": self.schedule}
        curves |= {f"learning_rate/{pattern}": schedule for pattern, schedule in self.schedules.items()}
        wanted = factor("learning_rate")
        return {name: self.learning_rate * curve.factor(step) * wanted for name, curve in curves.items()}

    def others(self, step: int, factor: Callable[[str], float]) -> dict[str, float]:
        """`weight_decay`, a factor on each group's own, and `clip_threshold`."""
        decay = 1.0 if self.decay_schedule is None else self.decay_schedule.factor(step)
        return {
            "weight_decay": decay * factor("weight_decay"),
            "clip_threshold": self.clip_threshold * factor("clip_threshold"),
        }
