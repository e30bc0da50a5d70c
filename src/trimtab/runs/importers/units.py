"""Foreign units brought to ours, from the name where it tells them, else from the size of the values, which is said."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab.runs.importers.cells import Floats
from trimtab.runs.importers.names import Meaning
from trimtab.runs.importers.vocabulary import MEASURED_IN

SLOWEST_STEP_SECONDS: Final = 20.0
"""A usual step that took longer is taken for milliseconds where nothing else tells."""

FEWEST_REPEATED, REPEATED = 12, 3
"""Rows, and how often each evaluation is there."""


def to_ours(name: str, values: Floats, meaning: Meaning, known_step_seconds: float | None) -> tuple[Floats, str | None]:
    """The values in our unit, and what was guessed for that. `known_step_seconds` comes from the log's own clock."""
    if meaning.inverse:
        with np.errstate(divide="ignore"):
            return 1.0 / values, f"step_seconds is 1 / {name}"
    kind = MEASURED_IN.get(meaning.ours)
    finite = np.abs(values[np.isfinite(values)])
    usual = float(np.median(finite)) if len(finite) else 0.0
    if kind is not None and meaning.factor is None and usual > 0:
        if kind == "bytes":
            factor, unit = (1.0, "bytes") if usual >= 1e7 else (2.0**20, "MiB") if usual >= 500 else (2.0**30, "GiB")
        elif known_step_seconds and meaning.ours == "step_seconds":
            unit, factor = min(
                (("seconds", 1.0), ("milliseconds", 1e-3), ("microseconds", 1e-6)),
                key=lambda one: abs(float(np.log(usual * one[1] / known_step_seconds))),
            )
        else:
            factor, unit = (1e-3, "milliseconds") if usual > SLOWEST_STEP_SECONDS else (1.0, "seconds")
        return values * factor, f"{name} is taken for {unit} (its median is {usual:.3g})"
    if meaning.factor is not None and meaning.factor != 1.0:
        return values * meaning.factor, None
    if meaning.ours.endswith("/accuracy") and len(finite) and 1.5 < float(finite.max()) <= 100.0:
        return values / 100.0, f"{name} is taken for percent"
    return values, None


def of_each_step(counted: Floats, steps: NDArray[np.int64]) -> Floats:
    """Skipped updates of each step, of a column that counts them up, as DeepSpeed's; flags as they are."""
    if not len(counted) or not (np.isfinite(counted).all() and counted.max() > 1.0 and (np.diff(counted) >= 0).all()):
        return counted
    return np.diff(counted, prepend=counted[:1]) / np.maximum(np.diff(steps, prepend=0), 1)


def without_padding(values: Floats) -> NDArrayOfBool | None:
    """Which values were measured, where NaN stands for "not measured in this row"; None when it does not.

    A loss that became NaN stays so or is rarely so; NaN that comes back between numbers, most of the time, is padding.
    """
    bad = np.isnan(values)
    num = int(bad.sum())
    if num < 0.5 * len(values) or len(values) - num < 3:
        return None
    there = np.flatnonzero(~bad)
    gaps = np.diff(there)
    if int((gaps > 1).sum()) < 2 or len(values) - 1 - int(there[-1]) > 2 * int(gaps.max()):
        return None
    return ~bad


def once_each(values: Floats) -> NDArrayOfBool | None:
    """Where evaluations begin in a column that says each again in all rows up to the next; None where it does not."""
    if len(values) < FEWEST_REPEATED:
        return None
    begins = np.insert(np.diff(values) != 0, 0, True)
    lengths = np.diff(np.flatnonzero(begins))
    return begins if len(lengths) >= 3 and float(np.median(lengths)) >= REPEATED and lengths.min() > 1 else None


NDArrayOfBool = np.ndarray[tuple[int], np.dtype[np.bool_]]
