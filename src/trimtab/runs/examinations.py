"""statistics/examinations/: what examinations read of layers, in files like those of every window.

A histogram takes as many columns as it has bins, and two for its ends: `<name>#low`, `<name>#high`, `<name>#0` …
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from trimtab.events import ExaminationEnded, Histogram
from trimtab.runs.statistics import read_statistics

EXAMINATIONS: Final = "examinations"


def columns_of(event: ExaminationEnded) -> dict[str, float]:
    """The values of layers, and of histograms, by column."""
    columns = dict(event.layers)
    for name, histogram in event.histograms.items():
        columns |= {f"{name}#low": histogram.low, f"{name}#high": histogram.high}
        columns |= {f"{name}#{index}": count for index, count in enumerate(histogram.counts)}
    return columns


def read_examinations(folder: Path) -> list[ExaminationEnded]:
    """Examinations in the order of their steps, with what is kept of layers alone; none where nothing was kept.

    What was no number is not told from what was not read, and left out.
    """
    steps, names, values_WC = read_statistics(folder)
    found: list[ExaminationEnded] = []
    for step, row in zip(steps.tolist(), values_WC.tolist(), strict=True):
        layers: dict[str, float] = {}
        parts: dict[str, dict[str, float]] = {}
        for column, value in zip(names, row, strict=True):
            name, mark, part = column.partition("#")
            if math.isnan(value):
                continue
            if not mark:
                layers[name] = value
            else:
                parts.setdefault(name, {})[part] = value
        histograms = {
            name: Histogram(part.pop("low"), part.pop("high"), tuple(part[str(index)] for index in range(len(part))))
            for name, part in parts.items()
        }
        found.append(ExaminationEnded(step, {}, 0.0, layers, histograms))
    return found
