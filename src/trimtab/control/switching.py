"""Let another optimizer take over once a metric stands still."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

from trimtab.events import Adjust, EvaluationEnded, Event, RunStarted
from trimtab.runs import format
from trimtab.runs.metrics import selection_direction


@final
class SwitchOptimizer:
    """Asks once for the optimizer `to`, after `patience` evaluations on end that did not improve on the best.

    A value that is not finite is no improvement. After a rollback to before it asked it may ask again.
    Source: Keskar and Socher 2017, arXiv 1712.07628, who switch from Adam to SGD; when, and at what rate, is said here
    by the configuration.
    """

    name = "switch"

    def __init__(self, to: str, patience: int, metric: str = "validation/loss") -> None:
        self.to, self.patience, self.metric = to, patience, metric
        self._sign = -1.0 if selection_direction(metric) == "higher" else 1.0
        self._best: float | None = None
        self._best_step = 0
        self._without_improvement = 0
        self._asked: int | None = None

    def decide(self, event: Event) -> Adjust | None:
        """Ask when the metric stands still."""
        if isinstance(event, RunStarted):
            if self._asked is not None and event.step < self._asked:
                self._asked = None
            if event.step < self._best_step:  # it belongs to a branch that was given up
                self._best, self._best_step, self._without_improvement = None, 0, 0
        if not isinstance(event, EvaluationEnded) or self._asked is not None or self.metric not in event.metrics:
            return None
        value = event.metrics[self.metric]
        if math.isfinite(value) and (self._best is None or self._sign * (self._best - value) > 0):
            self._best, self._best_step, self._without_improvement = value, event.step, 0
            return None
        self._without_improvement += 1
        if self._without_improvement < self.patience:
            return None
        self._asked = event.step
        best = "none was finite" if self._best is None else f"best {self._best:.4f} at step {self._best_step}"
        return Adjust(
            f"{self.metric} has not improved for {format.counted(self._without_improvement, 'evaluation')} "
            f"({best}, now {value:.4f}): {self.to} takes over",
            "optimizer",
            1.0,
        )

    def state(self) -> dict[str, Any]:
        """Best, where, evaluations since, and where it asked."""
        return {
            "best": self._best,
            "best_step": self._best_step,
            "without_improvement": self._without_improvement,
            "asked": self._asked,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` says."""
        self._best, self._best_step = state["best"], state["best_step"]
        self._without_improvement, self._asked = state["without_improvement"], state["asked"]
