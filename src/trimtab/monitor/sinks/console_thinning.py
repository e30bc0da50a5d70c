"""Which of the things that happen often a console tells where every line stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

ALLOWANCES: Final[Mapping[str, int]] = {
    "progress": 80,
    "evaluation": 80,
    "saved": 15,
    "sample": 15,
    "skipped": 10,
    "decision": 20,
    "finding": 15,
    "alert": 15,
    "back": 5,
}
"""The most lines of each kind in a run, however long it is: with what is said before and after, fewer than 300."""
_AT_ONCE: Final = 0.2
"""The part of its lines that a kind may use at any time; the others are earned as the run goes on."""


@final
class Thinning:
    """Tells of each kind as much as the part of the run that is done allows, and counts what is left out."""

    def __init__(self) -> None:
        self._told = dict.fromkeys(ALLOWANCES, 0)
        self._untold = dict.fromkeys(ALLOWANCES, 0)

    def admits(self, kind: str, fraction: float) -> bool:
        """Whether one more of `kind` is told when `fraction` of the run is done; one that is not is counted."""
        most = ALLOWANCES[kind]
        allowed = max(1.0, most * (_AT_ONCE + (1 - _AT_ONCE) * min(max(fraction, 0.0), 1.0)))
        if self._told[kind] + 1 > allowed:
            self._untold[kind] += 1
            return False
        self._told[kind] += 1
        return True

    def left_out(self, kind: str) -> int:
        """How many of `kind` were left out since one was told; they are told of by that."""
        untold, self._untold[kind] = self._untold[kind], 0
        return untold
