"""When to log, evaluate and save: a pure function of configuration and step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Calendar:
    """Steps are counted from 1: step s is over when s updates were attempted."""

    total_steps: int
    log_every: int
    evaluate_every: int
    save_every: int

    def evaluates(self, step: int) -> bool:
        """Every `evaluate_every` steps, and at the end."""
        return step % self.evaluate_every == 0 or step == self.total_steps

    def saves(self, step: int) -> bool:
        """Every `save_every` steps, and at the end."""
        return step % self.save_every == 0 or step == self.total_steps

    def closes_window(self, step: int) -> bool:
        """Every `log_every` steps and before each evaluation and save, which no window may cross.

        Steps 1 and 2 are windows of their own, so that a first loss is told after the second step.
        """
        return step <= 2 or step % self.log_every == 0 or self.evaluates(step) or self.saves(step)
