"""When to log, examine, evaluate and save: a pure function of configuration and step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, final

from trimtab.config import Config
from trimtab.config.examine import SHORTEST


@final
@dataclass(frozen=True, slots=True)
class Calendar:
    """Steps are counted from 1: step s is over when s updates were attempted."""

    total_steps: int
    log_every: int
    evaluate_every: int
    save_every: int
    examine_every: int = 0
    """0: only at evaluations."""
    examine_apart: int = 0
    """An evaluation examines when another so many steps are over since the one before it; 0: none does."""

    @classmethod
    def of(cls, config: Config) -> Self:
        """That of a run."""
        examine = config.logging.examine
        apart = examine.apart if examine.at_evaluations else 0
        steps, every = config.training.steps, config.logging.every
        return cls(steps, every, config.evaluation.every, config.save_every, examine.every, apart)

    def evaluates(self, step: int) -> bool:
        """Every `evaluate_every` steps, and at the end."""
        return step % self.evaluate_every == 0 or step == self.total_steps

    def saves(self, step: int) -> bool:
        """Every `save_every` steps, and at the end."""
        return step % self.save_every == 0 or step == self.total_steps

    def examines(self, step: int) -> bool:
        """Every `examine_every` steps, and at the first evaluation since a multiple of `examine_apart`; where that is
        longer than the run, at its end, unless this is a matter of a few steps."""
        if self.examine_every and step % self.examine_every == 0:
            return True
        if not (self.examine_apart and self.evaluates(step)):
            return False
        if self.total_steps < self.examine_apart:
            return step == self.total_steps and step >= self.examine_apart * SHORTEST
        before = (step - 1) // self.evaluate_every * self.evaluate_every
        return step // self.examine_apart > before // self.examine_apart

    def closes_window(self, step: int) -> bool:
        """Every `log_every` steps and before each evaluation and save, which no window may cross.

        Steps 1 and 2 are windows of their own, so that a first loss is told after the second step.
        """
        return step <= 2 or step % self.log_every == 0 or self.evaluates(step) or self.saves(step)
