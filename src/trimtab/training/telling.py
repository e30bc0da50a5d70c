"""What happens is told: to the record first, which must not fail, then to those that look on, who may."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import final

from trimtab.events import Event, Monitor
from trimtab.training.contracts import Recorder
from trimtab.training.split import StepTimer


def show(monitors: Sequence[Monitor], event: Event) -> None:
    """Show `event` to each; what a monitor raises is a warning."""
    for monitor in monitors:
        try:
            monitor.observe(event)
        except Exception as error:
            warnings.warn(f"{type(monitor).__name__} failed and was passed over: {error!r}", stacklevel=2)


@final
class Teller:
    """Writes events and shows them; the time that takes is booked as logging."""

    def __init__(
        self,
        recorder: Recorder,
        monitors: Sequence[Monitor],
        timer: StepTimer,
        private: Callable[[Event], Event | None] = lambda event: event,
    ) -> None:
        """`private` gives an event as it may be told, or None."""
        self.monitors = tuple(monitors)
        self._recorder, self._timer, self._private = recorder, timer, private

    def __call__(self, *events: Event) -> None:
        """Tell of `events`; what a monitor raises is a warning."""
        begun = time.perf_counter()
        for event in (told for one in events if (told := self._private(one)) is not None):
            self._recorder.record(event)
            show(self.monitors, event)
        self._timer.spend("logging", time.perf_counter() - begun)
