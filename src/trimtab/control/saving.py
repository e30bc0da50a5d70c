"""Save what is the best so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

from trimtab.events import EvaluationEnded, Event, RunStarted, Save
from trimtab.runs.metrics import selection_direction


@final
class SaveBest:
    """Asks for a checkpoint at every evaluation that is better than all before."""

    name = "save_best"

    def __init__(self, metric: str = "validation/loss") -> None:
        self.metric = metric
        self._sign = -1.0 if selection_direction(metric) == "higher" else 1.0
        self._best: float | None = None
        self._best_step = 0

    def decide(self, event: Event) -> Save | None:
        """Save when the metric improved."""
        if isinstance(event, RunStarted) and event.step < self._best_step:
            self._best = None  # it belongs to a branch that was given up
        if not isinstance(event, EvaluationEnded) or self.metric not in event.metrics:
            return None
        value = event.metrics[self.metric]
        if not math.isfinite(value) or (self._best is not None and self._sign * (self._best - value) <= 0):
            return None
        self._best, self._best_step = value, event.step
        return Save(f"best {self.metric}: {value:.4f}")

    def state(self) -> dict[str, Any]:
        """The best value, and where."""
        return {"best": self._best, "best_step": self._best_step}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` says."""
        self._best, self._best_step = state["best"], state["best_step"]
