"""Stop when a metric no longer improves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

from trimtab.events import EvaluationEnded, Event, RunStarted, Stop
from trimtab.runs import format
from trimtab.runs.metrics import selection_direction


@final
class Patience:
    """Counts evaluations on end that did not improve on the best by more than `min_delta`.

    Patience is counted in evaluations. A value that is not finite is no improvement.
    Source: Prechelt 1998, "Early Stopping - But When?", after the criterion UP, which compares with the strip
    before; this compares with the best so far, as most trainers do.
    """

    name = "patience"

    def __init__(
        self,
        patience: int,
        *,
        metric: str = "validation/loss",
        min_delta: float = 0.0,
        restore_best: bool = True,
    ) -> None:
        self.patience, self.metric, self.min_delta, self.restore_best = (
            patience,
            metric,
            min_delta,
            restore_best,
        )
        self._sign = -1.0 if selection_direction(metric) == "higher" else 1.0
        self._best: float | None = None
        self._best_step = 0
        self._without_improvement = 0

    def decide(self, event: Event) -> Stop | None:
        """Stop once patience is used up."""
        if isinstance(event, RunStarted) and event.step < self._best_step:
            # The best belongs to a branch that was given up.
            self._best, self._best_step, self._without_improvement = None, 0, 0
        if not isinstance(event, EvaluationEnded) or self.metric not in event.metrics:
            return None
        value = event.metrics[self.metric]
        improved = math.isfinite(value) and (self._best is None or self._sign * (self._best - value) > self.min_delta)
        if improved:
            self._best, self._best_step, self._without_improvement = value, event.step, 0
            return None
        self._without_improvement += 1
        if self._without_improvement < self.patience:
            return None
        best = "none was finite" if self._best is None else f"best {self._best:.4f} at step {self._best_step}"
        beyond = f" by more than {self.min_delta:g}" if self.min_delta else ""
        return Stop(
            f"{self.metric} has not improved{beyond} for {format.counted(self._without_improvement, 'evaluation')} "
            f"({best}, now {value:.4f})",
            restore_best=self.restore_best and self._best is not None,
        )

    def state(self) -> dict[str, Any]:
        """Best, where, and evaluations since."""
        return {
            "best": self._best,
            "best_step": self._best_step,
            "without_improvement": self._without_improvement,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` says."""
        self._best = state["best"]
        self._best_step = state["best_step"]
        self._without_improvement = state["without_improvement"]
