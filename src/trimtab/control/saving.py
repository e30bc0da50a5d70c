"""Save what is the best so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

from trimtab.events import Advise, EvaluationEnded, Event, RunStarted, Save
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
        self._has_told = False

    def decide(self, event: Event) -> Save | Advise | None:
        """Save when the metric improved; say so once when there is no such metric, or it is not finite."""
        if isinstance(event, RunStarted) and event.step < self._best_step:
            self._best = None  # it belongs to a branch that was given up
        if not isinstance(event, EvaluationEnded):
            return None
        value = event.metrics.get(self.metric)
        if value is None or not math.isfinite(value):
            return self._missed(event, "not measured" if value is None else "not finite")
        if self._best is not None and self._sign * (self._best - value) <= 0:
            return None
        self._best, self._best_step = value, event.step
        return Save(f"best {self.metric}: {value:.4f}")

    def _missed(self, event: EvaluationEnded, what: str) -> Advise | None:
        if self._has_told:
            return None
        self._has_told = True
        measured = ", ".join(name for name, value in event.metrics.items() if math.isfinite(value))
        return Advise(f"{self.metric} is {what}: until it is, no checkpoint is kept as the best. There are: {measured}")

    def state(self) -> dict[str, Any]:
        """The best value, where, and whether it was told that there is none."""
        return {"best": self._best, "best_step": self._best_step, "has_told": self._has_told}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` says."""
        self._best, self._best_step = state["best"], state["best_step"]
        self._has_told = state.get("has_told", False)
