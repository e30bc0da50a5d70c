"""Steer regularization by the gap between validation and training loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Literal, final

from trimtab.events import Adjust, EvaluationEnded, Event, RunStarted
from trimtab.runs import format

GAP: Final = "generalization_gap"


@final
class RegularizeByGap:
    """Turns one regularizer up while the generalization gap is too wide, and down again when it has closed.

    The gap is validation minus training loss, both in eval mode (dropout plays no part in it). Above `high` at
    `patience` evaluations on end, the factor on the setting is multiplied by `factor`, up to `highest`; below `low` as
    often, it is divided by it, down to `lowest`. Between the two nothing changes and both counts begin anew, so that it
    does not swing around one threshold. After a change `cooldown` evaluations do not count: the new strength must show
    first. A gap that is no number is passed over. One controller a setting: at one evaluation each may decide.

    Source: own. What to turn is the usual advice against overfitting (more dropout, weight decay, label smoothing:
    Goodfellow et al. 2016, chapter 7), and the two thresholds are a hysteresis as in any two-point regulator.
    """

    def __init__(
        self,
        setting: Literal["dropout", "weight_decay", "label_smoothing"],
        *,
        high: float = 0.3,
        low: float = 0.1,
        factor: float = 1.25,
        highest: float = 2.0,
        lowest: float = 1.0,
        patience: int = 2,
        cooldown: int = 1,
    ) -> None:
        self.setting, self.high, self.low, self.factor = setting, high, low, factor
        self.highest, self.lowest, self.patience, self.cooldown = highest, lowest, patience, cooldown
        self._wide = self._narrow = self._resting = self._seen = 0
        self._now = 1.0

    @property
    def name(self) -> str:
        """`regularize_` and the setting."""
        return f"regularize_{self.setting}"

    def decide(self, event: Event) -> Adjust | None:
        """Another factor when the gap has been too wide, or narrow, for long enough."""
        if isinstance(event, RunStarted) and event.step < self._seen:
            self._wide = self._narrow = 0  # what was counted belongs to a branch that was given up
        if not isinstance(event, EvaluationEnded) or not math.isfinite(gap := event.metrics.get(GAP, math.nan)):
            return None
        self._seen = event.step
        if self._resting:
            self._resting -= 1
            return None
        self._wide = self._wide + 1 if gap > self.high else 0
        self._narrow = self._narrow + 1 if gap < self.low else 0
        if self._wide >= self.patience:
            wanted, why = min(self.highest, self._now * self.factor), f"above {self.high:g}"
        elif self._narrow >= self.patience:
            wanted, why = max(self.lowest, self._now / self.factor), f"below {self.low:g}"
        else:
            return None
        times, self._wide, self._narrow = max(self._wide, self._narrow), 0, 0
        if wanted == self._now:
            return None
        before, self._now, self._resting = self._now, wanted, self.cooldown
        evaluations = format.counted(times, "evaluation") + (" on end" if times > 1 else "")
        return Adjust(
            f"the generalization gap was {why} at {evaluations} (now {gap:+.4f}): "
            f"factor on {self.setting.replace('_', ' ')} from {before:g} to {wanted:g}",
            self.setting,
            wanted,
        )

    def state(self) -> dict[str, Any]:
        """Evaluations on either side, those of the cooldown that are left, the newest step, and the factor."""
        return {
            "wide": self._wide,
            "narrow": self._narrow,
            "resting": self._resting,
            "seen": self._seen,
            "factor": self._now,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` says."""
        self._wide, self._narrow, self._resting = state["wide"], state["narrow"], state["resting"]
        self._seen, self._now = state["seen"], state["factor"]
