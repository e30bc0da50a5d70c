"""A report as Markdown, for an issue, a pull request or a notebook."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from trimtab.doctor import Finding, Remedy
from trimtab.doctor.finding import that_can_be_logged
from trimtab.report import words
from trimtab.report.gather import Report
from trimtab.report.lags import lag_lines
from trimtab.runs import format
from trimtab.runs.printable import printable

_SPECIAL: Final = re.compile(r"[\\`*_\[\]#]|[<>&|~$]|:(?=\S)|(?<=www)\.|^[-+](?=[-+\s]|$)|^=", re.IGNORECASE)
_NUMBERED: Final = re.compile(r"^(\d+)([.)])(?=\s|$)")
_ENTITIES: Final = "<>&|~$:."
"""What some readers of Markdown do not let be escaped by a backslash."""


def render_markdown(report: Report) -> str:
    """Verdict, three sentences, key figures, findings, decisions and settings; every text escaped."""
    return "\n".join([*_lines(report), ""])


def _lines(report: Report) -> Iterator[str]:
    diagnosis = report.diagnosis
    yield f"# {escaped(report.name or 'A run without a name')}"
    yield ""
    state = f", {escaped(report.status)}" if report.status else ""
    yield f"**{words.verdict_of(diagnosis)}** ({words.count_of(diagnosis.findings)}{state})"
    yield ""
    yield escaped(diagnosis.summary)
    if report.figures:
        yield ""
        rows = [(escaped(one.label), f"**{escaped(one.value)}**", escaped(one.note)) for one in report.figures]
        yield from _table(("figure", "value", ""), rows)
    for index, finding in enumerate(diagnosis.findings, start=1):
        yield ""
        yield from _finding(report, index, finding)
    if guesses := words.worth_telling(diagnosis):
        yield from ("", "## Not excluded", "", escaped(f"{words.guesses_head(diagnosis)}:"), "")
        yield from (f"- {escaped(words.told_guess(diagnosis, guess))}" for guess in guesses)
    if len(diagnosis.order) > 1:
        yield from ("", "## What broke first", "")
        yield from (f"- {escaped(told)}" for told in lag_lines(diagnosis.order, diagnosis.unit))
    if withheld := diagnosis.withheld if report.settings else that_can_be_logged(diagnosis.withheld):
        yield from ("", "## Not judged", "")
        yield from _table(
            ("finding", "log this to judge it"),
            [(code(item.code), ", ".join(map(code, item.needs))) for item in withheld],
        )
    if steered := report.steered():
        yield from ("", "## Decisions", "")
        yield from _table(("step", "who: what: why"), [(format.count(step), escaped(told)) for step, told in steered])
    if report.differences:
        yield from ("", f"## Settings that differ from {escaped(report.base)}", "")
        yield from _table(
            ("setting", "there", "here"),
            [(code(k), code(words.value_text(was)), code(words.value_text(now))) for k, was, now in report.differences],
        )
    if report.again:
        yield from ("", "## How to do it again", "", *_block(report.again))


def _finding(report: Report, index: int, finding: Finding) -> Iterator[str]:
    yield f"## {index}. {escaped(finding.code)}"
    yield ""
    since = words.onset(finding, report.diagnosis.unit)
    yield f"*{words.SEVERITIES[finding.severity]}, {words.confidence(finding.confidence)}, {since}*"
    yield ""
    yield escaped(finding.cause)
    if finding.evidence:
        yield ""
        yield from (f"- {escaped(item.text)}" for item in finding.evidence)
    if finding.consequences:
        yield ""
        yield f"It explains {', '.join(map(code, finding.consequences))}."
    for remedy in finding.remedies:
        yield ""
        yield from _remedy(report, remedy)


def _remedy(report: Report, remedy: Remedy) -> Iterator[str]:
    yield f"**{escaped(remedy.summary)}**"
    if remedy.config:
        yield ""
        rows = [
            (code(key), code(was) if was is not None else "", code(now))
            for key, was, now in words.changes(remedy, report.settings)
        ]
        yield from _table(("setting", "now", "proposed"), rows)
    if remedy.config and remedy.target == "trimtab" and report.kept:
        yield ""
        yield from _block(words.command_with(report.kept, remedy))


def escaped(text: str) -> str:
    """`text` as Markdown shows it, on one line: no markup, HTML or link to the web comes of it."""
    return _NUMBERED.sub(r"\1\\\2", _SPECIAL.sub(_escape, printable(text).strip()))


def code(text: str) -> str:
    """`text` as code, also inside a table."""
    shown = printable(text).strip()
    if not shown:
        return ""
    if "|" in shown or "`" in shown or "\\" in shown:
        return escaped(shown)
    return f"`{shown}`"


def _escape(match: re.Match[str]) -> str:
    sign = match[0]
    return f"&#{ord(sign)};" if sign in _ENTITIES else "\\" + sign


def _block(line: str) -> list[str]:
    """One line as a block of code, whose fence is longer than any in it."""
    shown = printable(line)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", shown)), default=0))
    return [f"{fence}sh", shown, fence]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
