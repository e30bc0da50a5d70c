"""What a sink is: it takes events in a thread of its own, and may take its time, fail, or hang."""

from __future__ import annotations

from typing import Protocol

from trimtab.events import Event


class Sink(Protocol):
    """Brings events to where people and other programs see them. All of it is called in one thread, never at once."""

    def observe(self, event: Event) -> None:
        """Take `event`. What it raises counts as a failure: the event is tried once more, then left out."""
        ...

    def flush(self) -> None:
        """Nothing new for a moment: bring what is buffered to where a killed process leaves it."""
        ...

    def close(self) -> None:
        """The run is over, and all events have been taken."""
        ...
