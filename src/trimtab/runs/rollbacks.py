"""Where a run went back, what it left out, and why: from its record, of which the later branch took the rest back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, final

from trimtab.events import DecisionTaken, Event, Rollback, RunStarted
from trimtab.runs import format
from trimtab.runs.record import event_from_json


@dataclass(frozen=True, slots=True)
class WentBack:
    """A rollback that was decided, and made."""

    step: int
    """Where it was decided."""
    onset_step: int
    """The first step that was undone for its own sake."""
    to_step: int
    reason: str
    code: str
    """The doctor's code for what was undone; "" where nobody said."""
    positions: tuple[tuple[int, int], ...] = ()
    """Of the data that was left out, as ranges without their ends."""

    def in_words(self) -> str:
        """What the run did about it, as the end of a sentence."""
        left_out = " and ".join(f"{format.count(start)} to {format.count(end - 1)}" for start, end in self.positions)
        text = f"the run went back to step {format.count(self.to_step)}"
        return f"{text} and left out data positions {left_out}" if left_out else text


@final
class Rollbacks:
    """Joins each decision with the start that follows it."""

    def __init__(self) -> None:
        self.made: list[WentBack] = []
        self._decided: DecisionTaken | None = None

    def note(self, event: Event) -> None:
        """Take in the next event of all branches."""
        if isinstance(event, DecisionTaken) and isinstance(event.decision, Rollback) and event.outcome == "taken":
            self._decided = event
        elif isinstance(event, RunStarted) and self._decided is not None:
            taken, self._decided = self._decided, None
            rollback = taken.decision
            assert isinstance(rollback, Rollback)
            self.made.append(
                WentBack(
                    taken.step,
                    rollback.onset_step,
                    event.step,
                    rollback.reason,
                    rollback.code,
                    tuple((int(start), int(end)) for start, end in taken.details.get("positions", ())),
                )
            )


def rollbacks_of(lines: Iterable[Mapping[str, Any]]) -> Rollbacks:
    """Those in lines of a record, of all branches."""
    rollbacks = Rollbacks()
    for line in lines:
        if line["event"] in ("DecisionTaken", "RunStarted"):
            with suppress(ValueError):  # no event of this version
                rollbacks.note(event_from_json(line))
    return rollbacks
