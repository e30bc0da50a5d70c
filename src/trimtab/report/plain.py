"""A whole report as lines for a terminal, a mail or a log: what the page says, without its curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from trimtab.report import words
from trimtab.report.evaluations import evaluations_of
from trimtab.report.gather import Report
from trimtab.report.text import render_text, wrapped
from trimtab.runs import format
from trimtab.runs.described import describe_split
from trimtab.runs.machine import describe_machine, describe_parts
from trimtab.runs.printable import printable

EVALUATIONS: Final = 12
"""Rows of evaluations that are shown."""
COLUMNS: Final = 8


def render_report(report: Report, *, width: int = 100, colour: bool = False) -> str:
    """Verdict, summary and findings; key figures, evaluations, decisions, checkpoints, time, the settings that differ
    from preset or defaults, and what trains the same again. No line end after.
    """
    parts = [render_text(report.diagnosis, settings=report.settings, width=width, colour=colour).splitlines()]
    if report.status:
        ended = f"{report.status}: {report.reason}" if report.reason else report.status
        parts.append(_section("ended", wrapped(ended, width, "  ")))
    figures = [(one.label, one.value, one.note) for one in report.figures]
    parts.append(_section("in figures", _table(figures, width=width)))
    parts.append(_section("evaluations", _evaluations(report, width)))
    steered = [(format.count(step), told) for step, told in report.steered()]
    parts.append(_section("decisions", [line for step, told in steered for line in _item(step, told, width)]))
    kept = [(format.count(step), format.size(size), path, reason) for step, path, size, reason in report.checkpoints]
    parts.append(_section("checkpoints", _table(kept, width=width, right=(0, 1))))
    if split := describe_split(report.time_split):
        whole = format.duration(sum(report.time_split.values()))
        lines = wrapped(f"{whole}: {split}", width, "  ")
        if of_a_step := describe_parts(report.machine):
            lines += wrapped(f"of a step: {of_a_step}", width, "  ")
        if machine := describe_machine(report.machine):
            lines += wrapped(machine, width, "  ")
        for found in report.profiles:
            lines += wrapped(f"profiled, {found}", width, "  ")
        parts.append(_section("time", lines))
    changed = [(key, words.value_text(now), f"(there {words.value_text(was)})") for key, was, now in report.differences]
    parts.append(_section(f"settings that differ from {report.base}", _table(changed, width=width)))
    parts.append(
        _section("to do it again, into a new directory", [f"  {printable(report.again)}"] if report.again else [])
    )
    return "\n".join(line.rstrip() for part in parts for line in part)


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", f"{printable(title)}:", *lines] if lines else []


def _evaluations(report: Report, width: int) -> list[str]:
    table = evaluations_of(report, EVALUATIONS)
    if not table.rows:
        return []
    names = table.names[:COLUMNS]
    rows = [("step", *names, "")]
    rows += [(format.count(s), *cells[: len(names)], "best" if s == table.best else "") for s, cells in table.rows]
    lines = _table(rows, width=width, right=range(len(names) + 1))
    left_out = table.total - len(table.rows)
    return [*lines, f"  {left_out} others are left out"] if left_out else lines


def _item(step: str, told: str, width: int) -> Iterator[str]:
    yield from wrapped(f"step {step}, {told}", width, "    ", "  ")


def _table(rows: Sequence[Sequence[str]], *, width: int, right: Sequence[int] = ()) -> list[str]:
    """Columns as wide as their widest cell; those in `right` end at one place. A line that is too long is cut."""
    shown = [[printable(cell, limit=60) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in shown) for column in range(len(shown[0]))] if shown else []
    lines = []
    for row in shown:
        cells = [
            cell.rjust(widths[column]) if column in right else cell.ljust(widths[column])
            for column, cell in enumerate(row)
        ]
        line = "  " + "  ".join(cells).rstrip()
        lines.append(line if len(line) <= width else line[: width - 1] + "…")
    return lines
