"""Writes a sound log and says what is warned about it."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.load import open_foreign_case

Column = NDArray[np.float64] | NDArray[np.int64]
Table = Mapping[str, Column]
"""Columns by name; NaN is an empty cell."""
Kind = Callable[[np.random.Generator], Table | str]
"""A table, or the text of a log as it is printed."""


def write(log: Table | str, file: Path) -> None:
    """Writes a table as CSV, with six digits as most loggers do, and a text as it is."""
    if isinstance(log, str):
        file.write_text(log)
        return
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(log)
        for row in zip(*(column.tolist() for column in log.values()), strict=True):
            writer.writerow(
                str(value) if isinstance(value, int) else f"{value:.6g}".replace("nan", "") for value in row
            )


def alarms(name: str, kind: Kind, seed: int, folder: Path) -> list[str]:
    """Codes of findings that are a warning or worse."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}-{seed}.csv"
    write(kind(np.random.default_rng(seed)), file)
    return [one.code for one in diagnose(open_foreign_case(file)[0]).findings if one.severity != "info"]
