"""Stop when updates are skipped again and again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

from trimtab.errors import NumericsError
from trimtab.events import Event, StepsEnded, Stop

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

    def decide(self, event: Event) -> Stop | None:
        """Stop with exit code 4 once `max_skipped` is reached."""
        if not isinstance(event, StepsEnded) or "skipped" not in event.per_step:
            return None
        scales = event.per_step.get("loss_scale")
        for index, skipped in enumerate(event.per_step["skipped"]):
            if not skipped:
                self._on_end = 0
            elif scales is None or scales[index] <= self.lowest_scale:
                self._on_end += 1
            if self._on_end >= self.max_skipped:
                return Stop(
                    f"{self._on_end} steps on end were skipped, up to step {event.first_step + index}: "
                    "the loss or the gradient is not finite",
                    exit_code=NumericsError.exit_code,
                )
        return None

    def state(self) -> dict[str, Any]:
        """Skipped steps on end."""
        return {"on_end": self._on_end}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` says."""
        self._on_end = state["on_end"]
