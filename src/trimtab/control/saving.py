"""Save what is among the best so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

from trimtab.events import Advise, EvaluationEnded, Event, RunStarted, Save
from trimtab.runs.metrics import selection_direction


@final
class SaveBest:
    """Asks for a checkpoint at every evaluation that is among the `most` best so far.

    While there are fewer, any is; then one that is better than the worst of them by more than `min_improvement`.
    """

    name = "save_best"

    def __init__(self, metric: str = "validation/loss", most: int = 1, min_improvement: float = 0.0) -> None:
        self.metric, self.most, self.min_improvement = metric, most, min_improvement
        self._sign = -1.0 if selection_direction(metric) == "higher" else 1.0
        self._best: list[tuple[float, int]] = []
        """Values and steps of those that were saved, the best first."""
        self._has_told = False

    def decide(self, event: Event) -> Save | Advise | None:
        """Save when the metric improved; say so once when there is no such metric, or it is not finite."""
        if isinstance(event, RunStarted):  # what belongs to a branch that was given up does not count
            self._best = [(value, step) for value, step in self._best if step <= event.step]
        if not isinstance(event, EvaluationEnded):
            return None
        value = event.metrics.get(self.metric)
        if value is None or not math.isfinite(value):
            return self._missed(event, "not measured" if value is None else "not finite")
        if len(self._best) >= self.most and not self._improves(value, self._best[self.most - 1][0]):
            return None
        rank = 1 + sum(self._sign * (value - other) >= 0 for other, _ in self._best)
        self._best = sorted([*self._best, (value, event.step)], key=lambda one: (self._sign * one[0], one[1]))
        self._best = self._best[: self.most]
        which = "best" if rank == 1 else f"{rank}. best"
        return Save(f"{which} {self.metric}: {value:.4f}")

    def _improves(self, value: float, over: float) -> bool:
        return self._sign * (over - value) > self.min_improvement

    def _missed(self, event: EvaluationEnded, what: str) -> Advise | None:
        if self._has_told:
            return None
        self._has_told = True
        measured = ", ".join(name for name, value in event.metrics.items() if math.isfinite(value))
        return Advise(f"{self.metric} is {what}: until it is, no checkpoint is kept as the best. There are: {measured}")

    def state(self) -> dict[str, Any]:
        """The best values with their steps, of which metric, and whether it was told that there is none."""
        return {"metric": self.metric, "best_ones": [list(one) for one in self._best], "has_told": self._has_told}

    def forget(self) -> None:
        """Begin anew: what was best is of another metric."""
        self._best, self._has_told = [], False

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` says; of values of another metric nothing is kept. Older ones do not say of which."""
        if state.get("metric", self.metric) != self.metric:
            self.forget()
            return
        if "best_ones" in state:
            self._best = [(float(value), int(step)) for value, step in state["best_ones"]]
        else:  # the first checkpoints kept one
            self._best = [] if state["best"] is None else [(float(state["best"]), int(state["best_step"]))]
        self._has_told = state.get("has_told", False)
