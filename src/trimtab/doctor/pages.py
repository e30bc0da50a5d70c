"""What a code means, from its row in the table and the docstring of its rule: the page that documentation shows."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from trimtab.doctor.codes import CODES
from trimtab.errors import UsageError

FOLDER: Final = "docs/reference/doctor"
"""Where the pages lie in the repository."""
SCORECARD: Final = "scorecard"
"""No code: how it is told what else a log resembles."""
_HEADINGS: Final = ("Looks for", "Why it matters", "Why", "Evidence", "Remedy", "False alarms", "Source")


@dataclass(frozen=True, slots=True)
class CodePage:
    """What a rule says of itself."""

    code: str
    kind: str
    """root, symptom or lint."""
    sentence: str
    parts: tuple[tuple[str, str], ...]
    """Heading and text, in the order of the docstring."""
    needs: tuple[str, ...]
    """The least that must have been logged."""
    explains: tuple[str, ...]
    explained_by: tuple[str, ...]
    """Codes of causes under which it is listed when both are found."""
    tasks: tuple[str, ...]

    @property
    def path(self) -> str:
        """The page in the repository; what a configuration shows is on one page for all."""
        if self.code == SCORECARD:
            return "docs/how-to/ask-the-doctor.md"
        return "docs/reference/lint-rules.md" if self.kind == "lint" else f"{FOLDER}/{self.code}.md"


def page_of(code: str) -> CodePage:
    """The page of a code with a rule, or of the scorecard.

    Raises: UsageError when there is no such code, or it has no rule yet.
    """
    if code == SCORECARD:
        from trimtab.doctor.differential import resemble

        return CodePage(code, "guesses", *_told_of(resemble.__doc__), ("train/loss",), (), (), ())
    if code not in CODES:  # as a person writes it
        code = "-".join(code.strip().lower().replace("_", " ").split())
    row = CODES.get(code)
    if row is None:
        raise UsageError(f"there is no finding {code!r}", hint=_nearest(code))
    rule = _rules(row.kind).get(code)
    if rule is None:
        raise UsageError(f"no rule looks for {code} yet: {row.sentence}", hint="trimtab doctor tells what has a rule")
    return CodePage(
        code,
        row.kind,
        *_told_of(sys.modules[rule.__module__].__doc__),
        row.signals,
        row.explains,
        tuple(cause for cause, other in CODES.items() if code in other.explains),
        row.tasks,
    )


def _told_of(docstring: str | None) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Sentence and parts."""
    title, _, body = inspect.cleandoc(docstring or "").partition("\n\n")
    return " ".join(title.partition(": ")[2].split()), parts_of(body)


def parts_of(body: str) -> tuple[tuple[str, str], ...]:
    """Heading and text of each part of a docstring: a part begins at the margin, what goes on is indented."""
    parts: list[tuple[str, str]] = []
    for line in body.splitlines():
        heading = next((one for one in _HEADINGS if re.match(rf"{one}\b(?:: | )", line)), None)
        if heading is not None:
            parts.append((heading, line.removeprefix(heading).removeprefix(":").strip()))
        elif line.strip() and parts:
            parts[-1] = (parts[-1][0], f"{parts[-1][1]} {line.strip()}")
        elif line.strip():
            parts.append(("", line.strip()))
    return tuple(parts)


def codes_with_rules() -> tuple[str, ...]:
    """Codes that a run's record can show, and that some rule looks for."""
    return tuple(_rules("root"))


def _rules(kind: str) -> Mapping[str, Callable[..., Any]]:
    if kind == "lint":
        from trimtab.doctor import lint

        return lint.RULES
    from trimtab.doctor import rules

    return rules.RULES


def _nearest(code: str) -> str:
    import difflib

    near = difflib.get_close_matches(code, CODES, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else "docs/reference/doctor-rules.md lists all codes"
