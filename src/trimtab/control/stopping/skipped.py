"""Stop when updates are skipped again and again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

import numpy as np

from trimtab.errors import NumericsError
from trimtab.events import Event, RunStarted, StepsEnded, Stop

_LOWEST_SCALE: Final = 1.0


@final
class SkippedSteps:
    """Counts skipped updates on end. With fp16 only those count that the lowest loss scale did not help: that is 1, or
    the scale itself where it is static.
    """

    name = "skipped_steps"

    def __init__(self, max_skipped: int, lowest_scale: float = _LOWEST_SCALE) -> None:
        self.max_skipped, self.lowest_scale = max_skipped, lowest_scale
        self._on_end = 0
        self._seen = 0
        self.first_step = 0
        """The first of the skipped steps on end."""

    def decide(self, event: Event) -> Stop | None:
        """Stop with exit code 4 once `max_skipped` is reached."""
        if isinstance(event, RunStarted) and event.step < self._seen:
            self.forget()  # they belong to a branch that was given up
        if not isinstance(event, StepsEnded) or "skipped" not in event.per_step:
            return None
        self._seen = event.last_step
        scales = event.per_step.get("loss_scale")
        for index, skipped in enumerate(event.per_step["skipped"]):
            if not skipped:
                self._on_end = 0
            elif scales is None or scales[index] <= self.lowest_scale:
                self._on_end += 1
                self.first_step = self.first_step if self._on_end > 1 else event.first_step + index
            if self._on_end >= self.max_skipped:
                values = [event.per_step[name][index] for name in ("train/loss", "grad_norm") if name in event.per_step]
                why = "far above those before" if values and np.isfinite(values).all() else "not finite"
                at_floor = "" if scales is None else f", and the loss scale of {scales[index]:g} cannot be lowered"
                skipped = "a step was" if self._on_end == 1 else f"{self._on_end} steps on end were"
                return Stop(
                    f"{skipped} skipped, up to step {event.first_step + index}: "
                    f"the loss or the gradient is {why}{at_floor}",
                    exit_code=NumericsError.exit_code,
                )
        return None

    def forget(self) -> None:
        """Count anew."""
        self._on_end = 0

    def state(self) -> dict[str, Any]:
        """Skipped steps on end, the first of them, and the newest step seen."""
        return {"on_end": self._on_end, "first_step": self.first_step, "seen": self._seen}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` says."""
        self._on_end = state["on_end"]
        self.first_step, self._seen = state.get("first_step", 0), state.get("seen", 0)
