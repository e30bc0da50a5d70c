"""A loss that goes astray, told in constant time for each step: when to look closer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, final

from trimtab.events import StepsEnded

_QUIET_STEPS: Final = 50
"""So many steps are only learned from."""
_MEMORY: Final = 0.02
"""What a step adds to the running mean and deviation: they remember about fifty."""
_SLACK: Final = 1.5
_LIMIT: Final = 15.0
"""In deviations, beyond a slack in each: ten steps at three, or two at ten."""
_MOST: Final = 10.0
"""Deviations that one step counts for: it takes two to trip."""
_LEAST: Final = 0.01
"""The least deviation, as a part of the level."""
_PER_MEAN: Final = 1.2533
"""Standard deviation of a normal distribution over its mean absolute deviation."""


@final
class Tripwire:
    """Trips at a loss that is no number, and at one that stays above its level: a one-sided CUSUM.

    Level and deviation are exponentially weighted means; what falls pulls both along, so that a descent never trips. It
    is no verdict: a restart of the schedule may trip it, too. After it has tripped it learns anew.

    Source: Page 1954 (CUSUM); slack and limit are own.
    """

    def __init__(self) -> None:
        self._last_step = 0
        self._clear()

    def _clear(self) -> None:
        self._num, self._level, self._deviation, self._sum = 0, 0.0, 0.0, 0.0
        self._is_bad = False

    def trips(self, window: StepsEnded) -> bool:
        """Take in a window; whether it tripped in it. What was known of these steps or later ones, of a branch that was
        given up, is forgotten with all else."""
        if window.first_step <= self._last_step:
            self._clear()
        self._last_step = window.last_step
        losses = window.per_step.get("train/loss")
        if losses is None:
            return False
        tripped = False
        for loss in losses.tolist():
            tripped = self._take(loss) or tripped
        return tripped

    def _take(self, loss: float) -> bool:
        if not math.isfinite(loss):
            is_new = not self._is_bad
            self._clear()
            self._is_bad = True  # a stretch of them trips once
            return is_new
        self._is_bad = False
        self._num += 1
        if self._num == 1:
            self._level = loss
            return False
        away = loss - self._level
        deviation = max(_PER_MEAN * self._deviation, _LEAST * abs(self._level), 1e-12)
        rate = max(_MEMORY, 1.0 / self._num)
        self._level += rate * away
        self._deviation += rate * (abs(away) - self._deviation)
        if self._num <= _QUIET_STEPS:
            return False
        self._sum = max(0.0, self._sum + min(away / deviation, _MOST) - _SLACK)
        if self._sum < _LIMIT:
            return False
        self._clear()
        return True

    def state(self) -> dict[str, Any]:
        """What it remembers."""
        return {
            "num": self._num,
            "level": self._level,
            "deviation": self._deviation,
            "sum": self._sum,
            "bad": self._is_bad,
            "last_step": self._last_step,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` says."""
        self._num, self._level = int(state["num"]), float(state["level"])
        self._deviation, self._sum, self._is_bad = float(state["deviation"]), float(state["sum"]), bool(state["bad"])
        self._last_step = int(state["last_step"])
