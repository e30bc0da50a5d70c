"""The curves in numbers: evaluations, and every metric."""

from __future__ import annotations

from typing import Final

import numpy as np

from trimtab.report.blocks import folded, scrolled
from trimtab.report.gather import Report
from trimtab.report.markup import Markup, element
from trimtab.report.words import metric_value
from trimtab.runs import format

TABLE_ROWS: Final = 16


def evaluations(report: Report) -> Markup:
    """Every evaluation, or some of many: the first, the best and the last are among them."""
    names = [name for name in report.curves if name.startswith(("validation/", "training_slice/"))]
    names += [name for name in ("generalization_gap",) if name in report.curves]
    if not names:
        return Markup()
    names.sort(key=lambda name: name != "validation/loss")
    found = {name: dict(zip(*map(list, report.curves[name].finite()), strict=True)) for name in names}
    steps = sorted({int(step) for values in found.values() for step in values})
    best = report.best.step if report.best is not None else None
    shown = set(steps)
    if len(steps) > TABLE_ROWS:
        shown = {steps[int(place)] for place in np.rint(np.linspace(0, len(steps) - 1, TABLE_ROWS))} | {
            best or steps[0]
        }
    heads = [element("th", "step", class_="n"), *(element("th", _short(name), class_="n") for name in names)]
    rows = [
        element(
            "tr",
            element("td", format.count(step), class_="n"),
            [
                element("td", metric_value(name, found[name][step]) if step in found[name] else "", class_="n")
                for name in names
            ],
            element("td", "best") if step == best else None,
            class_="marked" if step == best else None,
        )
        for step in steps
        if step in shown
    ]
    told = f"{len(steps)} in all" + (f", {len(rows)} shown" if len(rows) < len(steps) else "")
    return folded("Evaluations", told, scrolled(element("table", element("tr", heads), rows)))


def numbers(report: Report) -> Markup:
    """Every metric in numbers: the curves for those who do not see them."""
    heads = ["metric", "samples", "first", "last", "least", "at step", "largest", "at step", "not finite"]
    rows = []
    for name, curve in report.curves.items():
        _, values = curve.finite()
        bad = int(curve.bad.sum())
        if not len(values):
            rows.append([name, "", "", "", "", "", "", "", format.count(bad)])
            continue
        low, high = int(np.nanargmin(curve.low)), int(np.nanargmax(curve.high))
        rows.append(
            [
                name,
                format.count(len(curve.last)),
                metric_value(name, float(values[0])),
                metric_value(name, float(values[-1])),
                metric_value(name, float(curve.low[low])),
                format.count(int(curve.last[low])),
                metric_value(name, float(curve.high[high])),
                format.count(int(curve.last[high])),
                format.count(bad) if bad else "",
            ]
        )
    if not rows:
        return Markup()
    table = element(
        "table",
        element("tr", [element("th", head, class_="n" if index else None) for index, head in enumerate(heads)]),
        [
            element("tr", [element("td", cell, class_="n" if index else None) for index, cell in enumerate(row)])
            for row in rows
        ],
    )
    return folded("All metrics in numbers", f"{len(rows)} in all", scrolled(table))


def _short(name: str) -> str:
    return name.removeprefix("validation/").replace("training_slice/", "training ").replace("_", " ")
