"""Raise the batch towards the gradient noise scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

from trimtab.events import Adjust, Event, RunStarted, StepsEnded


@final
class BatchSize:
    """Below the noise scale a larger batch needs fewer steps for the same progress; far above it, it gains little.

    The target is `part` of the noise scale, at most `most` sequences. The batch is raised when the target is
    `hysteresis` times as large or more, the relative error of the noise scale at most `error`, and `wait` steps have
    passed since the last raise; a raise at most doubles it. It is never lowered: over a run the noise scale grows.
    The learning rate stays as it is.

    Source: McCandlish et al. 2018, arXiv 1812.06162, sections 2.3 and 5; bounds and hysteresis are own.
    """

    name = "batch_size"

    def __init__(self, *, part: float, most: int, hysteresis: float, wait: int, error: float) -> None:
        self.part, self.most, self.hysteresis, self.wait, self.error = part, most, hysteresis, wait, error
        self._raised_after = 0
        self._raised_from = 0.0

    def decide(self, event: Event) -> Adjust | None:
        """Ask for a larger batch, with the figures that say why."""
        if isinstance(event, RunStarted):
            self._raised_after = min(self._raised_after, event.step)  # a rollback went behind it; the batch stays
            if event.facts.get("is_other_batch"):  # somebody set it anew: what it was raised from is over
                self._raised_from = 0.0
        if not isinstance(event, StepsEnded) or "gradient_noise_scale" not in event.values:
            return None
        scale, batch = event.values["gradient_noise_scale"], event.values["batch_size"]
        error = event.values.get("gradient_noise_error", math.inf)
        target = min(self.part * scale, float(self.most))
        early = self._raised_after > 0 and event.first_step <= self._raised_after + self.wait
        unseen = batch == self._raised_from  # the larger batch was not measured yet
        if early or unseen or error > self.error or target < self.hysteresis * batch or target < batch + 1.0:
            return None
        self._raised_after, self._raised_from = event.last_step, batch
        asked = min(target, 2.0 * batch)
        aim = "" if self.part == 1.0 else f", of which {self.part:g} is aimed at"
        return Adjust(
            f"the gradient noise scale is {scale:.0f} sequences (± {error:.0%}){aim}, and a batch has {batch:.0f}",
            "batch_size",
            float(math.floor(asked)),
        )

    def state(self) -> dict[str, Any]:
        """The newest step that was known when the batch was last raised, and what it was raised from."""
        return {"raised_after": self._raised_after, "raised_from": self._raised_from}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` says."""
        self._raised_after, self._raised_from = state["raised_after"], state["raised_from"]
