"""Lines of a printed log that say that a later process went on from a checkpoint."""

from __future__ import annotations

import re
from typing import Final, final

from trimtab.runs.importers.text_line import number_of

_SAID: Final = re.compile(
    r"\bresum(?:ed|ing)(?: \w+){0,3} from\b(?:(?<=training from)|(?=.*(?:checkpoint|ckpt|step|iter|epoch|update|[./])))"
    r"(?!.*\b(?:none|false|no checkpoint)\b)",
    re.IGNORECASE,
)
_MARK: Final = re.compile(r"\[resumed\]|\bresumed\s*[:=]", re.IGNORECASE)
"""Of each row of a later process."""
_DENIED: Final = re.compile(
    r"\b(?:not|never|cannot|without|if|unless)\b|n't\b|\bafter (?:\w+ )?(?:eval|valid)|\bresumed\W{0,3}(?:0|no)\b"
    r"|\b(?:for|to) (?:\w+ ){0,2}(?:eval|valid|test|infer|sampl|generat|predict|export|merg)",
    re.IGNORECASE,
)
_LOADED: Final = re.compile(
    r"\bresum(?:ed|ing)(?: \w+){0,3} at\b|\b(?:loaded|restored) (?:from )?(?:the )?checkpoint\b", re.IGNORECASE
)
_AT_STEP: Final = re.compile(
    r"\b(?:global_?step|step|iteration|iter|num_updates|updates?)\W{1,3}(?P<step>\d{1,3}(?:,\d{3})+|\d{1,12})\b",
    re.IGNORECASE,
)
MOST: Final = 10
"""Lines of one log: what is said more often is said of something else, such as an evaluation."""


@final
class Resumes:
    """What lines say of it, and which of them the next row bears out.

    A checkpoint that was loaded (the best for a test, a teacher) makes a resume only where its step is told and the
    rows go on from there. Where each row says "resumed", the first does.
    """

    def __init__(self) -> None:
        self._newest: float | None = None
        self._every = 0.0
        self._told: tuple[float, bool] | None = None
        self._of_row = False
        self._found: list[int] = []

    def hears(self, line: str) -> bool:
        """Whether the line tells of one: then it is no row, unless it has a metric at a step of its own."""
        if self._newest is None or ("esum" not in line.lower() and " checkpoint" not in line.lower()):
            return False
        said = _SAID.search(line) or _MARK.search(line)
        if (said is None and _LOADED.search(line) is None) or _DENIED.search(line) is not None:
            return False
        at = _AT_STEP.search(line)
        if said is None and at is None:
            return False
        self._told = (self._newest if at is None else number_of(at["step"])), said is not None
        return True

    def row(self, step: float, tagged: bool) -> None:
        """A row came; `tagged` where its own line said that it was resumed."""
        newest, told, self._told = self._newest, self._told, None
        if told is not None and newest is not None and not (tagged and self._of_row):
            begin, said = (newest, True) if tagged else told
            if said or begin <= step <= begin + max(2.0 * self._every, 1.0):
                self._found.append(int(begin) + 1)
        if newest is not None and step > newest:
            self._every = step - newest
        self._newest, self._of_row = step, tagged

    @property
    def begun(self) -> list[int]:
        """The first steps of later attempts."""
        return self._found if len(self._found) <= MOST else []
