"""Two runs beside each other as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from trimtab.doctor.acts_on import Acts
from trimtab.doctor.compare.comparison import Change, Comparison, Parting
from trimtab.report import words
from trimtab.report.text import wrapped
from trimtab.runs import format
from trimtab.runs.printable import printable

KINDS: Final[dict[Acts, str]] = {
    "data": "what is learned from",
    "weights": "the model and how it learns",
    "length": "how long",
    "chance": "chance",
    "numerics": "how numbers are computed",
    "judgement": "how it is judged",
    "machine": "machine and versions",
    "nothing": "without effect on the result",
}
MOST_CHANGES: Final = 12
MOST_REASONS: Final = 6
MOST_TURNS: Final = 14


def render_comparison(comparison: Comparison, *, width: int = 100) -> str:
    """Which is better, why, what differs, where they part, what happened, and what to do; no line end after."""
    a, b = comparison.a, comparison.b
    lines = [f"a = {printable(a.path)}", f"b = {printable(b.path)}", *wrapped(comparison.summary, width, "  ")]
    for obstacle in comparison.obstacles:
        lines += wrapped(obstacle, width, "    ", "  ! ")
    lines += _table(comparison, width)
    lines += _reasons(comparison, width)
    lines += _changes(comparison.changes, width)
    if comparison.partings:
        lines += ["", "where they part:"]
        for parting in comparison.partings:
            lines += wrapped(parting_told(parting), width, "    ", "  - ")
    if comparison.turns:
        lines += ["", "what happened:"]
        for turn in comparison.turns[:MOST_TURNS]:
            lines += wrapped(f"{turn.side}, step {format.count(turn.step)}: {turn.text}", width, "    ", "  - ")
        if (more := len(comparison.turns) - MOST_TURNS) > 0:
            lines.append(f"  - {more} more (--json has all)")
    if comparison.earlier:
        lines += ["", "earlier runs of the project:"]
        for item in comparison.earlier:
            lines += wrapped(item, width, "    ", "  - ")
    lines += ["", *wrapped(comparison.recommendation.summary, width, "     ", "  => ")]
    lines += [f"     {printable(override)}" for override in words.overrides(comparison.recommendation)]
    return "\n".join(lines)


def _table(comparison: Comparison, width: int) -> Iterator[str]:
    outcomes = comparison.outcomes
    if not outcomes:
        return
    yield ""
    rows = [(f"{outcomes[0].metric}", "a", "b", "b - a", "")]
    for one in outcomes:
        better = one.told(comparison.a, comparison.b)
        rows.append((one.budget, _at(one.a, one.step_a), _at(one.b, one.step_b), format.signed(one.b - one.a), better))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(row[column].rjust(widths[column]) for column in (1, 2, 3)), row[4]]
        yield "  " + "  ".join(cells).rstrip()
    if outcomes[0].noise is not None:
        told = f"chance: up to {format.decimal(outcomes[0].noise)}, by {outcomes[0].source}"
        yield from wrapped(told, width, "  ")


def _at(value: float, step: int) -> str:
    return f"{format.decimal(value)} (step {format.count(step)})"


def _reasons(comparison: Comparison, width: int) -> Iterator[str]:
    if comparison.reasons:
        yield ""
        yield "what may have made the difference, the likeliest first:"
        for reason in comparison.reasons[:MOST_REASONS]:
            told = f"{reason.text} ({words.confidence(reason.confidence)})"
            yield from wrapped(told, width, "    ", "  - ")
        if (more := len(comparison.reasons) - MOST_REASONS) > 0:
            yield f"  - {more} more, none likelier (--json has all)"


def _changes(changes: Sequence[Change], width: int) -> Iterator[str]:
    yield ""
    if not changes:
        yield "no setting, fact or version that is known of both differs"
        return
    yield "what differs:"
    for kind, told in KINDS.items():
        some = [one for one in changes if one.kind == kind]
        if not some:
            continue
        if kind == "nothing":
            yield from wrapped(f"{told}: {', '.join(one.what for one in some)}", width, "    ", "  - ")
            continue
        yield f"  - {told}"
        for one in some[:MOST_CHANGES]:
            yield from wrapped(f"{one.what}: {shown(one.a)} | {shown(one.b)}", width, "        ", "      ")
        if (more := len(some) - MOST_CHANGES) > 0:
            yield f"      {more} more (--json has all)"


def shown(value: Any) -> str:
    """A value of a setting or fact in a table."""
    return "not set" if value is None else printable(str(value), limit=48)


def parting_told(parting: Parting) -> str:
    """Where two curves part, in a sentence."""
    name = words.metric_name(parting.metric)
    same = f"the same to the bit up to step {format.count(parting.same_until)}, " if parting.same_until else ""
    if parting.step is None:
        return f"{name}: {same}and not apart for good" if same else f"{name}: not apart for good"
    begin = parting.earliest if parting.earliest is not None else parting.step
    where = f"step {format.count(parting.step)}"
    if begin < parting.step:
        where = f"a step between {format.count(begin)} and {format.count(parting.step)}"
    unit = format.scientific if parting.metric == "learning_rate" else format.decimal
    sign = "+" if parting.difference > 0 else ""
    return f"{name}: {same}apart from {where} on; in the end b - a is {sign}{unit(parting.difference)}"
