"""Let more of a model be trained once a metric stands still."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

from trimtab.events import Adjust, DecisionTaken, EvaluationEnded, Event, RunStarted
from trimtab.runs import format
from trimtab.runs.metrics import selection_direction


@final
class UnfreezeOnPlateau:
    """Asks for the next of `num_lots` frozen lots after `patience` evaluations on end that did not improve on the best.

    A lot that begins for another reason, by its time, counts, too, and the patience begins anew with each. A value that
    is not finite is no improvement. After a rollback to before a lot began it may be asked for again.
    Source: gradual unfreezing, Howard and Ruder 2018, arXiv 1801.06146, section 3.3, who unfreeze one lot an epoch;
    that it waits for the metric is our own.
    """

    name = "unfreezing"

    def __init__(self, num_lots: int, patience: int, metric: str = "validation/loss") -> None:
        self.num_lots, self.patience, self.metric = num_lots, patience, metric
        self._sign = -1.0 if selection_direction(metric) == "higher" else 1.0
        self._best: float | None = None
        self._best_step = 0
        self._without_improvement = 0
        self._begun: list[tuple[int, int]] = []
        """At which step how many lots were trained from then on."""

    def decide(self, event: Event) -> Adjust | None:
        """Ask when the metric stands still and a lot is left."""
        if isinstance(event, RunStarted):
            self._begun = [(step, lots) for step, lots in self._begun if step <= event.step]
            if event.step < self._best_step:  # it belongs to a branch that was given up
                self._best, self._best_step, self._without_improvement = None, 0, 0
        elif isinstance(event, DecisionTaken):
            decision = event.decision
            if isinstance(decision, Adjust) and decision.name == "unfreeze" and event.outcome == "taken":
                self._begun.append((event.step, round(decision.value)))
                self._without_improvement = 0
        if not isinstance(event, EvaluationEnded) or self.metric not in event.metrics:
            return None
        value = event.metrics[self.metric]
        if math.isfinite(value) and (self._best is None or self._sign * (self._best - value) > 0):
            self._best, self._best_step, self._without_improvement = value, event.step, 0
            return None
        self._without_improvement += 1
        lots = max((lots for _, lots in self._begun), default=0)
        if self._without_improvement < self.patience or lots >= self.num_lots:
            return None
        best = "none was finite" if self._best is None else f"best {self._best:.4f} at step {self._best_step}"
        return Adjust(
            f"{self.metric} has not improved for {format.counted(self._without_improvement, 'evaluation')} "
            f"({best}, now {value:.4f}): entry {lots + 1} of {self.num_lots} of model.unfreeze is trained",
            "unfreeze",
            float(lots + 1),
        )

    def state(self) -> dict[str, Any]:
        """Best, where, evaluations since, and which lots began where."""
        return {
            "best": self._best,
            "best_step": self._best_step,
            "without_improvement": self._without_improvement,
            "begun": [list(one) for one in self._begun],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` says."""
        self._best, self._best_step = state["best"], state["best_step"]
        self._without_improvement = state["without_improvement"]
        self._begun = [(int(step), int(lots)) for step, lots in state["begun"]]
