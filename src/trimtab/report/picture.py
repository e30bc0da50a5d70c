"""A finding as one picture that stands alone: an SVG for pages that are no report."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Final

from trimtab.doctor import Finding
from trimtab.report.diagram import SCALE_WIDTH, Drawn, drawn
from trimtab.report.figures import finding_panels, shades_of, whole_run, with_loss
from trimtab.report.gather import Report
from trimtab.report.markup import Markup, element, join
from trimtab.report.page import packaged
from trimtab.report.panel import Trace, Window
from trimtab.report.strip import Strip, strip_parts
from trimtab.runs import format

WIDTH: Final = 760
EDGE: Final = 16
COLUMNS: Final = 220
"""Points a curve: it is for the eye alone."""
HEAD: Final = 30
GAP: Final = 12
NAMES_WIDTH: Final = 150
MOST_KEYS: Final = 4
_LETTER: Final = 6.6
"""Width of a letter of a legend, about."""
_LETTER_OF_TITLE: Final = 7.9


def render_picture(report: Report, finding: Finding, told: str) -> str:
    """An SVG file of what a finding speaks of over the whole run, in light colours on its own ground.

    `told` is what those hear who do not see it: its `<desc>`, from which documentation takes it.
    """
    window = whole_run(report, finding)
    blocks = [*_panels(report, finding, window), *_layers(report, finding, window), *_time(report, finding)]
    body, at = [], EDGE
    for block, height in blocks:
        body.append(element("g", block, transform=f"translate(0 {at})"))
        at += height + GAP
    height = at - GAP + EDGE
    picture = element(
        "svg",
        element("title", finding.code),
        element("desc", told),
        element("style", Markup(_style())),
        element("rect", class_="ground", width=WIDTH, height=height),
        body,
        xmlns="http://www.w3.org/2000/svg",
        width=WIDTH,
        height=height,
        viewBox=f"0 0 {WIDTH} {height}",
        role="img",
    )
    return f"{picture}\n"


def _panels(report: Report, finding: Finding, window: Window) -> Iterator[tuple[Markup, int]]:
    for panel in with_loss(report, finding_panels(report, finding)):
        parts = drawn(panel, replace(window, shades=shades_of(finding, panel)), COLUMNS, readable=False)
        if parts is not None:
            yield _panel(parts), HEAD + parts.height


def _panel(parts: Drawn) -> Markup:
    unit = parts.panel.unit if parts.panel.unit not in ("", "fraction") else ""
    head = [element("text", _capital(parts.panel.title), class_="panel-title", x=EDGE + SCALE_WIDTH, y=16)]
    x = EDGE + SCALE_WIDTH + _LETTER_OF_TITLE * len(parts.panel.title) + 18
    if unit:
        head.append(element("text", unit, x=x, y=16))
        x += _LETTER * (len(unit) + 3)
    if len(parts.traces) > 1 or parts.traces[0].label != parts.panel.title:
        for trace in parts.traces:
            head.append(_key(trace, x))
            x += _LETTER * (len(trace.label) + 7)
    head += [element("text", note, x=WIDTH - EDGE, y=16, text_anchor="end") for note in parts.notes[:1]]
    return join(head, _beside(parts.scale, parts.field, SCALE_WIDTH, parts.height))


def _key(trace: Trace, x: float) -> Markup:
    return join(
        element("line", class_=f"curve {trace.role}", x1=x, x2=x + 16, y1=12, y2=12),
        element("circle", class_=f"point {trace.role}", cx=x + 8, cy=12, r=3) if trace.points else None,
        element("text", trace.label, x=x + 22, y=16),
    )


def _layers(report: Report, finding: Finding, window: Window) -> Iterator[tuple[Markup, int]]:
    """What a finding says of layers, as colours."""
    named = [item.metric.rsplit("/", 1)[-1] for item in finding.evidence if item.metric.startswith("layer/")]
    for layer in report.layers:
        if layer.metric in named and (parts := strip_parts(layer, window.first, window.last)) is not None:
            yield _strip(parts), HEAD + parts.height


def _strip(parts: Strip) -> Markup:
    note = f"; {parts.note}" if parts.note else ""
    head = [
        element("text", _capital(parts.title), class_="panel-title", x=EDGE, y=16),
        element("text", parts.told + note, x=WIDTH - EDGE, y=16, text_anchor="end"),
    ]
    return join(head, _beside(parts.names, parts.field, NAMES_WIDTH, parts.height))


def _time(report: Report, finding: Finding) -> Iterator[tuple[Markup, int]]:
    """Where the time went, for a finding on what the record has no curve of."""
    whole = sum(report.time_split.values())
    if whole <= 0 or not any(item.metric == "evaluation_seconds" for item in finding.evidence):
        return
    parts = sorted(((name, part) for name, part in report.time_split.items() if part > 0), key=lambda item: -item[1])
    at, drawn = float(EDGE), [element("text", "Time", class_="panel-title", x=EDGE, y=16)]
    keys = EDGE + 60.0
    for index, (name, seconds) in enumerate(parts):
        width, colour = (WIDTH - 2 * EDGE) * seconds / whole, f"split-{min(index, 5)}"
        drawn.append(element("rect", class_=colour, x=at, y=HEAD, width=width, height=24))
        if index < MOST_KEYS:
            label = f"{name} {format.share(seconds / whole)}"
            drawn.append(element("rect", class_=colour, x=keys, y=6, width=12, height=12))
            drawn.append(element("text", label, x=keys + 18, y=16))
            keys += 18 + _LETTER * (len(label) + 3)
        at += width
    yield join(drawn), HEAD + 24


def _beside(scale: Markup, field: Markup, scale_width: int, height: int) -> Markup:
    """Scale and field next to each other, each in a window of its own: their places are parts of its width."""
    width = WIDTH - 2 * EDGE - scale_width
    return join(
        element("svg", scale, x=EDGE, y=HEAD, width=scale_width, height=height),
        element("svg", field, x=EDGE + scale_width, y=HEAD, width=width, height=height),
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


@cache
def _style() -> str:
    """The rules of the report that draw, with its light colours put in: not every viewer knows variables."""
    sheet = packaged("style.css")
    colours = dict(re.findall(r"--(\w[\w-]*): ([^;]+);", sheet.partition("}")[0]))
    curves = sheet.partition("/* Curves */")[2].partition("/*")[0]
    curves += "".join(re.findall(r"\.split-\d \{[^}]*\}", sheet))
    kept = []
    for selector, body in re.findall(r"([^{}]+)\{([^{}]*)\}", curves):
        if re.match(
            r"(?:svg|path|line|circle|rect|text|\.grid|\.zero|\.scale|\.pixels|\.split-\d)\b", selector.strip()
        ):
            put_in = re.sub(r"var\(--([\w-]+)\)", lambda found: colours[found[1]], body)
            kept.append(f"{selector.strip()} {{{put_in.rstrip()}}}")
    ground = f"rect.ground {{ fill: {colours['card']}; stroke: none; }}"
    title = f"text.panel-title {{ fill: {colours['ink']}; font-weight: 650; font-size: 13px; }}"
    face = 'svg { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }'
    return "\n".join([face, *kept, ground, title])
