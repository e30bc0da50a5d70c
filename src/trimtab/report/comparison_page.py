"""Two runs beside each other as one HTML file, in the style of a report: it fetches nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from trimtab.doctor.compare.comparison import Comparison, Side
from trimtab.report import words
from trimtab.report.blocks import command, folded, scrolled, section
from trimtab.report.comparison import KINDS, parting_told, shown
from trimtab.report.curves import Curve
from trimtab.report.diagram import draw
from trimtab.report.markup import Markup, badge, element
from trimtab.report.page import whole_page
from trimtab.report.panel import Panel, Role, Shade, Trace, Window
from trimtab.runs import format

ROLES: Final[tuple[Role, Role]] = ("train", "validation")
"""Colours of a and b."""
PANELS: Final = (
    ("validation/loss", 240),
    ("train/loss", 240),
    ("validation/accuracy", 140),
    ("learning_rate", 120),
    ("grad_norm", 140),
    ("generalization_gap", 120),
    ("step_seconds", 110),
)


def render_comparison_page(comparison: Comparison) -> str:
    """The page: the same bytes for the same comparison."""
    a, b = comparison.a.name, comparison.b.name
    body = [_head(comparison), element("main", _reasons(comparison), _curves(comparison), *_tables(comparison))]
    return whole_page(f"{a} and {b}", body)


def _head(comparison: Comparison) -> Markup:
    a, b = comparison.a, comparison.b
    first, _, rest = comparison.summary.partition(". ")
    return element(
        "header",
        element("p", "trimtab compare", class_="over"),
        element("h1", f"{a.name} and {b.name}"),
        element("p", element("b", f"{first}. "), rest, class_="lead"),
        [element("p", obstacle, class_="lead") for obstacle in comparison.obstacles],
        _verdicts(a, b),
    )


def _verdicts(*sides: Side) -> Markup:
    rows = [
        element(
            "tr",
            element("th", letter),
            element("td", element("code", side.path)),
            element("td", badge(side.diagnosis.verdict, 16), " ", words.verdict_of(side.diagnosis)),
            element("td", ", ".join(one.code for one in side.diagnosis.findings) or "no findings"),
        )
        for letter, side in zip("ab", sides, strict=True)
    ]
    return scrolled(element("table", rows))


def _reasons(comparison: Comparison) -> Markup:
    remedy = comparison.recommendation
    items = [
        element("li", reason.text, " ", element("span", words.confidence(reason.confidence), class_="chip"))
        for reason in comparison.reasons
    ]
    todo = element(
        "div",
        element("p", remedy.summary),
        command(" ".join(words.overrides(remedy))) if remedy.config else None,
        class_="remedy",
    )
    return section(
        "What made the difference",
        element("ol", items) if items else element("p", "Nothing that was written down explains it."),
        element("ul", [element("li", told) for told in comparison.earlier]) if comparison.earlier else None,
        element("h3", "What to do"),
        todo,
        name="reasons",
    )


def _curves(comparison: Comparison) -> Markup:
    a, b = comparison.a.case, comparison.b.case
    last = max(a.history.last_step, b.history.last_step, 1)
    unit = "epoch" if a.counts_epochs and b.counts_epochs else "step"
    begins = [case.history.series[name].first_steps[0] for case in (a, b) for name in case.history.series]
    first = 0 if not begins or min(begins) <= 1 + 0.05 * last else int(min(begins))
    drawn = []
    for panel in _panels(comparison):
        parting = next((one for one in comparison.partings if one.metric in panel.metrics), None)
        onsets: tuple[tuple[int, str], ...] = ()
        shades: tuple[Shade, ...] = ()
        if parting is not None and parting.step is not None:
            onsets = ((parting.step, parting_told(parting)),)
            if parting.earliest is not None and parting.earliest < parting.step:
                shades = (Shade(parting.earliest, parting.step, "they part somewhere here"),)
        drawn.append(draw(panel, Window(first, last, onsets, shades, unit)))
    stack = element("div", drawn, class_="stack", data_first=first, data_last=last)
    told = [element("li", parting_told(one)) for one in comparison.partings]
    return section("Curves", stack, element("ul", told) if told else None, name="curves")


def _panels(comparison: Comparison) -> Iterator[Panel]:
    """Of both over the same steps, in one scale."""
    for name, height in PANELS:
        traces = []
        for letter, side, role in zip("ab", (comparison.a, comparison.b), ROLES, strict=True):
            series = side.case.evaluated(name)
            if series is not None and len(series):
                curve = Curve.of(series)
                points = name.startswith("validation/") and len(curve.last) <= 400
                label, smooth = f"{letter}: {side.name}", name != "learning_rate"
                traces.append(Trace(label, curve, role, points, smooth=smooth, dashed=letter == "b"))
        if len(traces) > 0:
            yield Panel(
                words.metric_name(name),
                tuple(traces),
                words.metric_unit(name),
                height,
                from_zero=name in ("learning_rate", "step_seconds"),
                positive=name != "generalization_gap",
                metrics=(name,),
            )


def _tables(comparison: Comparison) -> Iterator[Markup]:
    head = element(
        "tr",
        element("th", ""),
        element("th", "a", class_="n"),
        element("th", "b", class_="n"),
        element("th", "b - a", class_="n"),
        element("th", ""),
    )
    rows = [
        element(
            "tr",
            element("td", f"{one.metric}, {one.budget}"),
            element("td", f"{format.decimal(one.a)} at step {format.count(one.step_a)}", class_="n"),
            element("td", f"{format.decimal(one.b)} at step {format.count(one.step_b)}", class_="n"),
            element("td", format.signed(one.b - one.a), class_="n"),
            element("td", one.told(comparison.a, comparison.b)),
        )
        for one in comparison.outcomes
    ]
    noise = next((one for one in comparison.outcomes if one.noise is not None), None)
    told = f"Chance: up to {format.decimal(noise.noise or 0.0)}, by {noise.source}." if noise is not None else ""
    yield section(
        "What they came to",
        scrolled(element("table", head, rows)) if rows else None,
        element("p", told, class_="soft") if told else None,
        name="outcomes",
    )
    yield section("What differs", [_changes(comparison, kind) for kind in KINDS], name="changes")
    turns = [
        element(
            "tr",
            element("td", turn.side),
            element("td", format.count(turn.step), class_="n"),
            element("td", turn.kind),
            element("td", turn.text),
        )
        for turn in comparison.turns
    ]
    names = [element("th", "run"), element("th", "step", class_="n"), element("th", "what"), element("th", "")]
    yield section(
        "What happened", scrolled(element("table", element("tr", names), turns)) if turns else None, name="turns"
    )


def _changes(comparison: Comparison, kind: str) -> Markup:
    some = [one for one in comparison.changes if one.kind == kind]
    rows = [
        element(
            "tr",
            element("td", element("code", one.what)),
            element("td", element("code", shown(one.a))),
            element("td", element("code", shown(one.b))),
        )
        for one in some
    ]
    head = element("tr", element("th", "what"), element("th", "a"), element("th", "b"))
    is_open = kind in ("data", "weights", "length", "chance")
    title = KINDS[kind]  # type: ignore[index]
    return folded(
        title[:1].upper() + title[1:],
        f"{len(some)}",
        scrolled(element("table", head, rows)) if rows else None,
        is_open=is_open,
    )
