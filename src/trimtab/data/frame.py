"""The special tokens that stand around a text, where a text stands by itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self, final


@final
@dataclass(frozen=True, slots=True)
class Frame:
    """What stands before and after a text, and before a second text that is written: tokens by number.

    Not in streams of packed documents, which only end-of-text tokens divide.
    """

    before: tuple[int, ...]
    after: tuple[int, ...] = ()
    second: int = 0
    """What a decoder has read when it says the first token of a second text."""

    @classmethod
    def beginning(cls, token: int) -> Self:
        """Each text, first or second, begins after `token`."""
        return cls((token,), (), token)

    @property
    def size(self) -> int:
        """Positions that it takes of a text's."""
        return len(self.before) + len(self.after)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Self:
        """What `to_json` wrote."""
        return cls(tuple(state["before"]), tuple(state["after"]), int(state["second"]))
