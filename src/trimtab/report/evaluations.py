"""The evaluations of a run as a table: for a page and for a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from trimtab.report.gather import Report
from trimtab.report.words import metric_value
from trimtab.runs.leading import leading_of

TABLE_ROWS: Final = 16


@dataclass(frozen=True, slots=True)
class Evaluations:
    """Steps and, for each, a cell a column; "" where it was not measured."""

    names: tuple[str, ...]
    """Columns, in short."""
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    total: int
    """Evaluations in all."""
    best: int | None
    """The step of the best."""


def evaluations_of(report: Report, most: int = TABLE_ROWS) -> Evaluations:
    """Every evaluation, or some of many: the first, the best and the last are among them."""
    names = [name for name in report.curves if name.startswith(("validation/", "training_slice/"))]
    names += [name for name in report.curves if name.partition("@")[0] == "generalization_gap"]
    first = leading_of(report.facts) or ("validation/loss",)
    names.sort(key=lambda name: first.index(name) if name in first else len(first))
    found = {name: dict(zip(*map(list, report.curves[name].finite()), strict=True)) for name in names}
    steps = sorted({int(step) for values in found.values() for step in values})
    best = report.best.step if report.best is not None else None
    shown = set(steps)
    if len(steps) > most:
        shown = {steps[int(place)] for place in np.rint(np.linspace(0, len(steps) - 1, most))} | {best or steps[0]}
    rows = tuple(
        (step, tuple(metric_value(name, found[name][step]) if step in found[name] else "" for name in names))
        for step in steps
        if step in shown
    )
    return Evaluations(tuple(map(_short, names)), rows, len(steps), best)


def _short(name: str) -> str:
    return name.removeprefix("validation/").replace("training_slice/", "training ").replace("_", " ")
