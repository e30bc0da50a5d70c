"""Finds spikes in what a run tells of its steps: a loss or a gradient norm far above its level."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, final

import numpy as np

from trimtab.events import StepsEnded

QUIET: Final = 8
"""So many steps that are not high end a spike; so often, too, the level is taken anew."""
_MAD_TO_DEVIATION: Final = 1.4826
_LEAST_LOSS: Final = 0.01
"""The least deviation of the loss, as a part of its level."""
_LEAST_NORM: Final = 0.1
"""The least deviation of the logarithm of the gradient norm."""
_RISEN: Final = 1.05
"""A learning rate above its median by so much is rising: what loss and gradient do then is the schedule's."""


@dataclass(frozen=True, slots=True)
class Spike:
    """Steps that are high, from the first to the last that was seen."""

    first: int
    last: int
    goes_on: bool
    """Whether it may not be over at the last step that was seen."""
    text: str


@final
class SpikeDetector:
    """Compares each step with those before it, by a robust z-score, and gives a spike once `patience` steps are high.

    A step is high when its loss, or the logarithm of its gradient norm, lies more than `deviations` above the median of
    the last `memory` steps, in units of 1.4826 times their median absolute deviation (at least 1 % of the loss, 0.1 of
    the logarithm). A fast descent is below the median, and widens the deviation, so that it is none. Nothing is judged
    while the learning rate is more than 5 % above its median over those steps: in a warm-up, after a restart, or when a
    lowered rate is set free. Skipped steps are passed over. High steps are remembered like any: a level that lasts
    becomes the usual one.

    Source: own. The robust z-score: Iglewicz and Hoaglin 1993. What spikes are like in large runs, and that going back
    and leaving out data helps: Chowdhery et al. 2022, arXiv 2204.02311, section 5.1.
    """

    def __init__(
        self,
        signal: Literal["loss", "grad_norm", "either"] = "either",
        *,
        memory: int = 100,
        deviations: float = 8.0,
        patience: int = 3,
    ) -> None:
        self.signal, self.memory, self.deviations, self.patience = signal, memory, deviations, patience
        self._past: list[list[float]] = []  # step, loss, logarithm of the norm, rate
        self._level: list[float] | None = None  # median and deviation of loss and norm, median of the rate
        self._levelled_at = 0
        self._open: dict[str, Any] | None = None

    def see(self, window: StepsEnded) -> Spike | None:
        """Take in a window; gives a spike when that is complete, once for each. What was known of these steps or later
        ones, of a branch that was given up, is forgotten."""
        names = ("train/loss", "grad_norm", "learning_rate", "skipped")
        if not set(names) <= set(window.per_step):
            return None
        self._forget(window.first_step)
        found: Spike | None = None
        last = 0
        columns = (window.per_step[name].tolist() for name in names)
        for offset, (loss, norm, rate, skipped) in enumerate(zip(*columns, strict=True)):
            if skipped:
                continue
            new = self._take(window.first_step + offset, loss, norm, rate)
            found = found or new
            if found is not None and self._open is not None:
                last = int(self._open["last"])  # steps of this window that come after are a part of it
        return None if found is None else Spike(found.first, last, window.last_step - last < QUIET, found.text)

    def tell_again(self) -> None:
        """Give the spike that is open once more, when `patience` further steps are high."""
        if self._open is not None:
            self._open |= {"told": False, "high": 0}

    def _take(self, step: int, loss: float, norm: float, rate: float) -> Spike | None:
        if len(self._past) >= self.memory // 2 and (self._level is None or step - self._levelled_at >= QUIET):
            self._level, self._levelled_at = self._levels(), step
        finite = math.isfinite(loss) and math.isfinite(norm)
        size = math.log(max(norm, 1e-30)) if finite else math.inf
        scores = self._scores(loss, size, rate)
        if finite:
            self._past = [*self._past[-(self.memory - 1) :], [step, loss, size, rate]]
        opened = self._open
        if not scores or max(scores.values()) <= self.deviations:
            if opened is not None and step - opened["last"] >= QUIET:
                self._open = None
            return None
        if opened is None or step - opened["last"] > QUIET:
            self._open = opened = {
                "first": step,
                "last": step,
                "high": 0,
                "told": False,
                "peak": [0.0, "", 0, 0.0, 0.0],
            }
        name, score = max(scores.items(), key=lambda item: item[1])
        opened["last"], opened["high"] = step, opened["high"] + 1
        if score > opened["peak"][0]:
            assert self._level is not None
            usual = self._level[0] if name == "loss" else math.exp(self._level[2])
            opened["peak"] = [min(score, 1e6), name, step, loss if name == "loss" else norm, usual]
        if opened["high"] < self.patience or opened["told"]:
            return None
        opened["told"] = True
        return Spike(opened["first"], step, True, _in_words(opened))

    def _scores(self, loss: float, size: float, rate: float) -> dict[str, float]:
        """Robust z-scores of what is looked at; {} while nothing is judged."""
        if self._level is None or rate > _RISEN * self._level[4]:
            return {}
        median, deviation, median_size, deviation_size, _ = self._level
        scores = {
            "loss": (loss - median) / deviation if math.isfinite(loss) else math.inf,
            "grad_norm": (size - median_size) / deviation_size if math.isfinite(size) else math.inf,
        }
        return scores if self.signal == "either" else {self.signal: scores[self.signal]}

    def _levels(self) -> list[float]:
        past = np.asarray(self._past)
        medians = np.median(past, axis=0)
        deviations = _MAD_TO_DEVIATION * np.median(np.abs(past - medians), axis=0)
        loss, size, rate = (float(value) for value in medians[1:])
        return [
            loss,
            max(float(deviations[1]), _LEAST_LOSS * abs(loss), 1e-12),
            size,
            max(float(deviations[2]), _LEAST_NORM),
            rate,
        ]

    def _forget(self, from_step: int) -> None:
        if self._open is not None and self._open["last"] >= from_step:
            self._open = None  # also where all its steps were not finite, so that none is remembered
        if not self._past or self._past[-1][0] < from_step:
            return
        self._past = [entry for entry in self._past if entry[0] < from_step]
        self._level = None

    def state(self) -> dict[str, Any]:
        """The steps that are compared with, their level and when it was taken, and the spike that is open."""
        return {
            "past": [list(entry) for entry in self._past],
            "level": self._level,
            "levelled_at": self._levelled_at,
            "open": None if self._open is None else {**self._open, "peak": list(self._open["peak"])},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` says."""
        self._past = [list(entry) for entry in state["past"]]
        self._level, self._levelled_at = state["level"], state["levelled_at"]
        self._open = None if state["open"] is None else {**state["open"], "peak": list(state["open"]["peak"])}


def _in_words(opened: Mapping[str, Any]) -> str:
    score, name, step, value, usual = opened["peak"]
    what = "training loss" if name == "loss" else "gradient norm"
    return (
        f"the {what} was {value:.4g} at step {step:,}, where {usual:.4g} is usual ({score:.0f} robust deviations); "
        f"{opened['high']} steps since {opened['first']:,} are high"
    )
