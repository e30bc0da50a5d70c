"""Steer the learning rate: lower it when a metric no longer improves, or while the run is unsteady.

Both give a factor on the scheduled rate, absolute and not on top of the one before: a decision that another
controller overruled is made good by the next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Literal, final

import numpy as np

from trimtab.events import Adjust, EvaluationEnded, Event, FloatArray, RunStarted, StepsEnded
from trimtab.runs import format
from trimtab.runs.metrics import selection_direction

_MAD_TO_DEVIATION: Final = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""
_LEAST_DEVIATION: Final = 0.05
"""Of a logarithm: where all values were alike, 5 % count as one deviation."""
_LEAST_VALUES: Final = 8


@final
class ReduceOnPlateau:
    """Multiplies the rate by `factor` after `patience` evaluations on end without improvement, down to `minimum`.

    An improvement is more than `threshold` better than the best: as a part of it, or as a difference. In the
    `cooldown` evaluations after a reduction none counts as bad. A value that is not finite is no improvement.
    Source: torch.optim.lr_scheduler.ReduceLROnPlateau, with two differences. It reduces after `patience` bad ones, as
    trimtab counts patience, where torch waits for one more. And bounds are on the factor, not on the rate, which the
    schedule moves as well.
    """

    name = "plateau"

    def __init__(
        self,
        patience: int = 3,
        *,
        metric: str = "validation/loss",
        factor: float = 0.5,
        minimum: float = 0.01,
        threshold: float = 1e-4,
        threshold_mode: Literal["relative", "absolute"] = "relative",
        cooldown: int = 0,
    ) -> None:
        self.patience, self.metric, self.factor, self.minimum = patience, metric, factor, minimum
        self.threshold, self.threshold_mode, self.cooldown = threshold, threshold_mode, cooldown
        self._sign = -1.0 if selection_direction(metric) == "higher" else 1.0
        self._best: float | None = None
        self._best_step = 0
        self._bad = 0
        self._resting = 0
        self._now = 1.0

    def decide(self, event: Event) -> Adjust | None:
        """A lower factor once patience is used up."""
        if isinstance(event, RunStarted) and event.step < self._best_step:
            # The best belongs to a branch that was given up; the factor stays, as factors do in a rollback.
            self._best, self._best_step, self._bad = None, 0, 0
        if not isinstance(event, EvaluationEnded) or self.metric not in event.metrics:
            return None
        value = event.metrics[self.metric]
        if self._improves(value):
            self._best, self._best_step, self._bad = value, event.step, 0
        else:
            self._bad += 1
        if self._resting:
            self._resting, self._bad = self._resting - 1, 0
        if self._bad < self.patience:
            return None
        bad, self._bad, self._resting = self._bad, 0, self.cooldown
        lower = max(self.minimum, self._now * self.factor)
        if lower >= self._now:
            return None
        before, self._now = self._now, lower
        best = "none was finite" if self._best is None else f"best {self._best:.4f} at step {self._best_step}"
        unit = " of its best" if self.threshold_mode == "relative" else ""
        beyond = f" by more than {self.threshold:g}{unit}" if self.threshold else ""
        return Adjust(
            f"{self.metric} has not improved{beyond} for {format.counted(bad, 'evaluation')} ({best}, now "
            f"{value:.4f}): factor on the learning rate from {before:g} to {lower:g}",
            "learning_rate",
            lower,
        )

    def _improves(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self._best is None:
            return True
        least = self.threshold * (abs(self._best) if self.threshold_mode == "relative" else 1.0)
        return self._sign * (self._best - value) > least

    def state(self) -> dict[str, Any]:
        """Best, where, bad evaluations since, those of the cooldown that are left, and the factor."""
        return {
            "best": self._best,
            "best_step": self._best_step,
            "bad": self._bad,
            "resting": self._resting,
            "factor": self._now,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` says."""
        self._best, self._best_step, self._bad = state["best"], state["best_step"], state["bad"]
        self._resting, self._now = state["resting"], state["factor"]


@final
class ReduceOnUnsteadiness:
    """Multiplies the rate by `factor` when a signal was high `patience` times on end, down to `minimum`.

    Every `every` steps give one value of each signal: `grad_norm`, the logarithm of the median gradient norm;
    `loss_spread`, the logarithm of the standard deviation of the training loss, taken from the differences of
    neighbouring steps, so that a loss that falls is not unsteady. Skipped steps and values that are not finite are
    left out; fewer than four that are left give no value. A value is high when its robust z-score, (value - median) /
    (1.4826 · median absolute deviation), among the `memory` values before it is above `deviations`; from eight values
    on. High values are remembered, too: a level that lasts becomes the usual one, and is not punished for ever. After a
    reduction, `cooldown` values count as not high. With `recovery`, so many values on end that are not high take one
    reduction back.

    Source: own. The robust z-score: Iglewicz and Hoaglin 1993, "How to Detect and Handle Outliers", which names 3.5.
    The deviation from differences: von Neumann et al. 1941, "The Mean Square Successive Difference".
    """

    name = "unsteadiness"

    def __init__(
        self,
        signal: Literal["grad_norm", "loss_spread", "either"] = "either",
        *,
        every: int = 10,
        memory: int = 50,
        deviations: float = 3.5,
        patience: int = 3,
        factor: float = 0.5,
        minimum: float = 0.1,
        cooldown: int = 10,
        recovery: int | None = None,
    ) -> None:
        self.signals = ("grad_norm", "loss_spread") if signal == "either" else (signal,)
        self.every, self.memory, self.deviations, self.patience = every, memory, deviations, patience
        self.factor, self.minimum, self.cooldown, self.recovery = factor, minimum, cooldown, recovery
        self._open: dict[str, list[float]] = {}
        self._steps = self._seen = 0
        self._begin_stretch()
        self._past: dict[str, list[float]] = {name: [] for name in self.signals}
        self._high: dict[str, int] = dict.fromkeys(self.signals, 0)
        self._calm = 0
        self._resting = 0
        self._now = 1.0

    def decide(self, event: Event) -> Adjust | None:
        """A lower factor when a signal stays high, a higher one when all has been calm for long."""
        if isinstance(event, RunStarted) and event.step < self._seen:
            self._begin_stretch()  # its steps belong to a branch that was given up
        if not isinstance(event, StepsEnded) or not {"train/loss", "grad_norm", "skipped"} <= set(event.per_step):
            return None
        self._seen = event.last_step
        before, reason = self._now, ""
        columns = (event.per_step["train/loss"], event.per_step["grad_norm"], event.per_step["skipped"])
        for offset, (loss, norm, skipped) in enumerate(zip(*columns, strict=True)):
            counts = not skipped and math.isfinite(loss) and math.isfinite(norm)
            if counts:
                self._open["loss_spread"].append(float(loss))
                self._open["grad_norm"].append(float(norm))
            self._steps += 1
            if self._steps == self.every:
                reason = self._judge(event.first_step + offset) or reason
        if self._now == before:
            return None
        told = f"{reason}: factor on the learning rate from {before:g} to {self._now:g}"
        return Adjust(told, "learning_rate", self._now)

    def _judge(self, step: int) -> str:
        """Take the values of the steps that end with `step`; gives why the factor changed, or ""."""
        taken = {name: _value(name, self._open[name]) for name in self.signals}
        self._begin_stretch()
        scores = {name: _score(value, self._past[name]) for name, value in taken.items() if value is not None}
        for name, value in taken.items():
            if value is not None:
                self._past[name] = [*self._past[name], value][-self.memory :]
        if self._resting:
            self._resting -= 1
            return ""
        for name, score in scores.items():
            self._high[name] = self._high[name] + 1 if score > self.deviations else 0
        self._calm = 0 if any(self._high.values()) else self._calm + 1
        worst = max(self._high, key=lambda name: self._high[name])
        if self._high[worst] >= self.patience:
            often = format.counted(self._high[worst], "time") + (" on end" if self._high[worst] > 1 else "")
            self._high, self._calm, self._resting = dict.fromkeys(self.signals, 0), 0, self.cooldown
            self._now = max(self.minimum, self._now * self.factor)
            what = "the gradient norm" if worst == "grad_norm" else "the spread of the loss"
            return (
                f"{what} was high {often}, each over {format.counted(self.every, 'step')}, up to step {step} "
                f"({scores[worst]:.1f} robust deviations above its median)"
            )
        if self.recovery is not None and self._calm >= self.recovery and self._now < 1.0:
            calm, self._calm = self._calm, 0
            self._now = min(1.0, self._now / self.factor)
            return f"calm for {calm * self.every} steps, up to step {step}"
        return ""

    def _begin_stretch(self) -> None:
        self._open, self._steps = {"grad_norm": [], "loss_spread": []}, 0

    def state(self) -> dict[str, Any]:
        """The open stretch, remembered values, what was high or calm, the cooldown that is left, and the factor."""
        return {
            "open": {name: list(values) for name, values in self._open.items()},
            "steps": self._steps,
            "seen": self._seen,
            "past": {name: list(values) for name, values in self._past.items()},
            "high": dict(self._high),
            "calm": self._calm,
            "resting": self._resting,
            "factor": self._now,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` says."""
        self._open = {name: list(values) for name, values in state["open"].items()}
        self._steps, self._seen = state["steps"], state["seen"]
        self._past = {name: list(state["past"].get(name, [])) for name in self.signals}
        self._high = {name: int(state["high"].get(name, 0)) for name in self.signals}
        self._calm, self._resting, self._now = state["calm"], state["resting"], state["factor"]


def _value(name: str, values: list[float]) -> float | None:
    """The logarithm of a stretch's median norm, or of the deviation of its losses from step to step."""
    if len(values) < 4:
        return None
    plain = float(np.median(values)) if name == "grad_norm" else float(np.sqrt(np.mean(np.diff(values) ** 2) / 2.0))
    return math.log(plain) if plain > 0.0 else None


def _score(value: float, past: list[float]) -> float:
    """The robust z-score of `value` among `past`; 0 while there are too few to judge by."""
    if len(past) < _LEAST_VALUES:
        return 0.0
    known: FloatArray = np.asarray(past)
    median = float(np.median(known))
    deviation = max(_LEAST_DEVIATION, _MAD_TO_DEVIATION * float(np.median(np.abs(known - median))))
    return (value - median) / deviation
