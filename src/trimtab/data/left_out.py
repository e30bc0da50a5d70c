"""What of a source is not used, and why: counted by reason, and named where it cannot be used."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, final

from trimtab.errors import DataError

UNUSABLE: Final = "unusable"
MOST_NAMED: Final = 1_000
"""So many are named in facts.json; all are counted."""


@final
class LeftOut(Counter[str]):
    """Reason to number. Up to `most` records or files that cannot be used are passed over; one more is an error."""

    def __init__(self, most: int = 0) -> None:
        super().__init__()
        self.most = most
        self.named: list[str] = []
        """What is wrong with each, beginning with its file and place."""

    def pass_over(self, error: DataError) -> None:
        """Note what `error` says, and go on. Raises: DataError when that is one too many."""
        if self.most == 0:
            raise error
        if self[UNUSABLE] >= self.most:
            raise DataError(
                f"{error.message}; {self.most} before it were passed over already, which is all that data.max_bad "
                "allows",
                hint=error.hint,
            ) from error
        self[UNUSABLE] += 1
        if len(self.named) < MOST_NAMED:
            self.named.append(error.message)

    def counts(self) -> dict[str, Any]:
        """Reason to number, as JSON values."""
        return dict(sorted(self.items()))
