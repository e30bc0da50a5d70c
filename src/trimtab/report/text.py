"""A diagnosis as lines for a terminal or a log."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from trimtab.doctor import Diagnosis, Finding, Remedy, Withheld
from trimtab.doctor.codes import UNJUDGED
from trimtab.doctor.finding import that_can_be_logged
from trimtab.report import words
from trimtab.report.lags import lag_lines
from trimtab.runs.printable import printable

MOST_WITHHELD: Final = 5
"""Lines on what was not logged; a list that is longer is not read."""
_COLOURS: Final = {"error": "31", "failed": "31", "warning": "33", "attention": "33", "info": "36", "healthy": "32"}


def render_text(
    diagnosis: Diagnosis,
    *,
    settings: Mapping[str, Any] | None = None,
    width: int = 100,
    colour: bool = False,
) -> str:
    """Verdict, three sentences, each finding with evidence and remedies, then what was withheld; no line end after.

    `settings` are the run's own, so that a change shows what it was; `colour` adds terminal sequences.
    """
    paint = _painted if colour else _plain
    lines = [render_verdict(diagnosis, width=width, colour=colour)]
    for finding in diagnosis.findings:
        lines += ["", *_finding(finding, settings or {}, width, paint, diagnosis.unit)]
    if guesses := words.worth_telling(diagnosis):
        lines += ["", *_guesses(diagnosis, guesses, width)]
    if len(diagnosis.order) > 1:
        lines += ["", "what broke first, which need not be the cause:"]
        for told in lag_lines(diagnosis.order, diagnosis.unit):
            lines += wrapped(told, width, "    ", "  - ")
    withheld = diagnosis.withheld if settings else that_can_be_logged(diagnosis.withheld)
    if any(finding.code == UNJUDGED for finding in diagnosis.findings):
        withheld = tuple(one for one in withheld if "train/loss" not in ", ".join(one.needs))  # which it says above
    if withheld:
        lines += ["", *_withheld(withheld, width)]
    return "\n".join(lines)


def render_verdict(diagnosis: Diagnosis, *, width: int = 100, colour: bool = False) -> str:
    """Verdict and three sentences alone; no line end after."""
    verdict = (_painted if colour else _plain)(words.verdict_of(diagnosis).lower(), diagnosis.verdict)
    head = f"{printable(words.title_of(diagnosis))}: {verdict} ({words.count_of(diagnosis.findings)})"
    return "\n".join([head, *wrapped(diagnosis.summary, width, "  ")])


def _finding(finding: Finding, settings: Mapping[str, Any], width: int, paint: Any, unit: str) -> Iterator[str]:
    head = f"{words.SEVERITIES[finding.severity]} {finding.code}"
    yield f"{paint(head, finding.severity)} ({words.confidence(finding.confidence)}; {words.onset(finding, unit)})"
    yield from wrapped(finding.cause, width, "  ")
    for item in finding.evidence:
        yield from wrapped(item.text, width, "    ", "  - ")
    if finding.consequences:
        yield from wrapped(f"explains: {', '.join(finding.consequences)}", width, "  ")
    for remedy in finding.remedies:
        yield from _remedy(remedy, settings, width)


def _guesses(diagnosis: Diagnosis, guesses: Sequence[Finding], width: int) -> Iterator[str]:
    """What else it could be: in a line where nothing asks for attention."""
    head = words.guesses_head(diagnosis)
    if diagnosis.verdict == "healthy":
        yield from wrapped(f"{head}: {', '.join(map(words.chance_of, guesses))}", width, "  ", "")
        return
    yield f"{head}:"
    for guess in guesses:
        yield from wrapped(words.told_guess(guess), width, "    ", "  - ")


def _remedy(remedy: Remedy, settings: Mapping[str, Any], width: int) -> Iterator[str]:
    where = f" (in {words.TARGETS[remedy.target]})" if remedy.config and remedy.target != "trimtab" else ""
    yield from wrapped(remedy.summary + where, width, "     ", "  => ")
    for (_, was, _), override in zip(words.changes(remedy, settings), words.overrides(remedy), strict=True):
        told = f"     {printable(override)}"
        yield told if was is None else f"{told}  (was {printable(was, limit=60)})"


def _withheld(withheld: Sequence[Withheld], width: int) -> Iterator[str]:
    """Findings that lack the same signals, in one line."""
    by_needs: dict[tuple[str, ...], list[str]] = {}
    for item in withheld:
        by_needs.setdefault(item.needs, []).append(item.code)
    yield "not judged, for want of what was not logged:"
    shown = MOST_WITHHELD if len(by_needs) <= MOST_WITHHELD else MOST_WITHHELD - 1
    for needs, codes in list(by_needs.items())[:shown]:
        yield from wrapped(f"{', '.join(codes)}: log {', '.join(needs)}", width, "    ", "  - ")
    if (more := len(by_needs) - shown) > 0:
        yield f"  and {more} more, with --json"


def wrapped(text: str, width: int, indent: str, first: str | None = None) -> list[str]:
    """`text` in lines of at most `width` signs, indented; the first by `first`, where that is given."""
    return textwrap.wrap(
        printable(text),
        max(width, 40),
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _painted(text: str, kind: str) -> str:
    return f"\x1b[1;{_COLOURS[kind]}m{text}\x1b[0m"


def _plain(text: str, kind: str) -> str:
    return text
