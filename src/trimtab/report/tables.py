"""The curves in numbers: evaluations, and every metric."""

from __future__ import annotations

import numpy as np

from trimtab.report.blocks import folded, scrolled
from trimtab.report.evaluations import evaluations_of
from trimtab.report.gather import Report
from trimtab.report.markup import Markup, element
from trimtab.report.words import metric_value
from trimtab.runs import format


def evaluations(report: Report) -> Markup:
    """Every evaluation, or some of many: the first, the best and the last are among them."""
    table = evaluations_of(report)
    if not table.rows:
        return Markup()
    heads = [element("th", "step", class_="n"), *(element("th", name, class_="n") for name in table.names)]
    rows = [
        element(
            "tr",
            element("td", format.count(step), class_="n"),
            [element("td", cell, class_="n") for cell in cells],
            element("td", "best") if step == table.best else None,
            class_="marked" if step == table.best else None,
        )
        for step, cells in table.rows
    ]
    told = f"{table.total} in all" + (f", {len(rows)} shown" if len(rows) < table.total else "")
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
