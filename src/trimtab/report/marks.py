"""What a reader should notice in a diagram: evidence, onsets, the best, and what cannot be drawn as a line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from trimtab.report.axes import Axis
from trimtab.report.curves import Curve, stretches
from trimtab.report.markup import Markup, element, percentage
from trimtab.report.panel import Trace, Window
from trimtab.runs import format

MOST_POINTS: Final = 120
INSIDE: Final = 0.1
"""Of the width: what two words take in most pictures."""


def shades(window: Window, height: int) -> Iterator[Markup]:
    """Evidence, as a tinted range of steps."""
    for shade in window.shades:
        first, last = max(shade.first, window.first), min(shade.last, window.last)
        if first <= last:
            width = max(window.place(last) - window.place(first), 0.004)
            begin = min(window.place(first), 1 - width)
            yield element(
                "rect",
                element("title", shade.label),
                class_="evidence",
                x=percentage(begin),
                width=percentage(width),
                y=0,
                height=height,
            )


def onsets(window: Window, height: int) -> Iterator[Markup]:
    """Where findings begin."""
    for step, label in window.onsets:
        if window.first <= step <= window.last:
            x = percentage(window.place(step))
            yield element("line", element("title", label), class_="onset", x1=x, x2=x, y1=0, y2=height)


def bad(columns: Curve, window: Window, height: int) -> Iterator[Markup]:
    """Stretches in which values are not finite; the longest says so."""
    spans = columns.bad_spans()
    longest = max(spans, key=lambda span: span[1] - span[0], default=None)
    for first, last in spans:
        begin, end = (min(max(window.place(step), 0.0), 1.0) for step in (first, last))
        x = percentage(begin)
        yield element(
            "rect",
            element("title", f"not finite: steps {format.count(first)} to {format.count(last)}"),
            class_="bad",
            x=x,
            width=percentage(end - begin),
            y=0,
            height=height,
        )
        yield element("line", class_="bad", x1=x, x2=x, y1=0, y2=height)
        if (first, last) == longest:
            side = "end" if end - begin < INSIDE and begin > 0.5 else "start"  # no curve is where it is not finite
            yield element(
                "text", "not finite", class_="bad", x=x, dx=-6 if side == "end" else 6, y=height - 8, text_anchor=side
            )


def points(trace: Trace, axis: Axis, window: Window, height: int) -> Iterator[Markup]:
    """A point for each exact value, as long as there are few."""
    inside = trace.curve.between(window.first, window.last)
    steps, values = inside.finite()
    if trace.points and len(steps) <= MOST_POINTS:
        for step, value in zip(steps, np.clip(axis.place(values), 0.0, 1.0), strict=True):
            yield element(
                "circle",
                class_=f"point {trace.role}",
                cx=percentage(window.place(int(step))),
                cy=float((1 - value) * height),
                r=3,
            )


def bests(shown: Sequence[tuple[Trace, Curve]], axis: Axis, window: Window, height: int) -> Iterator[Markup]:
    """A ring around the best value, and the value."""
    for trace, columns in shown:
        steps, values = columns.finite()
        if trace.best_step is None or trace.best_step not in steps:
            continue
        value = float(values[int(np.flatnonzero(steps == trace.best_step)[0])])
        place = window.place(trace.best_step)
        y = (1 - min(max(axis.at(value), 0.0), 1.0)) * height
        side = "end" if place > 0.75 else "start" if place < 0.25 else "middle"
        above = y > 34
        yield element("circle", class_=f"best {trace.role}", cx=percentage(place), cy=y, r=6.5)
        yield element(
            "text",
            f"best {format.decimal(value)}",
            class_="best",
            x=percentage(place),
            y=y - 13 if above else y + 22,
            text_anchor=side,
        )


def beyond(columns: Curve, axis: Axis, window: Window, height: int) -> Iterator[Markup]:
    """Small arrows where values lie beyond the axis."""
    for outside, y, tip in (
        (columns.high > axis.high, 2, -7),
        (columns.low < axis.low, height - 2, 7),
    ):
        groups = stretches(outside)
        for rows in groups[:: max(1, math.ceil(len(groups) / 40))]:
            middle = int(columns.last[(rows.start + rows.stop - 1) // 2])
            arrow = element("path", class_="beyond", d=f"M-4.5 0h9l-4.5 {tip}z")
            yield element("svg", arrow, x=percentage(window.place(middle)), y=y - tip, overflow="visible")


def far_values(curve: Curve, axis: Axis) -> Iterator[str]:
    """What lies farthest beyond the axis."""
    for values, far, told in (
        (curve.high, curve.high > axis.high, "▲ beyond the scale up to"),
        (-curve.low, curve.low < axis.low, "▼ beyond the scale down to"),
    ):
        if far.any():
            at = int(np.argmax(np.where(far, values, -np.inf)))
            value = float((curve.high if values is curve.high else curve.low)[at])
            yield f"{told} {format.decimal(value)} at step {format.count(int(curve.last[at]))}"
