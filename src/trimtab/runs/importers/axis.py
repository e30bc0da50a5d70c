"""Which step a row of a foreign table belongs to, and in which order its rows come."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab.runs import format
from trimtab.runs.importers.cells import Floats, Rows
from trimtab.runs.importers.names import words
from trimtab.runs.importers.table import Table
from trimtab.runs.importers.vocabulary import EPOCHS, STEPS
from trimtab.runs.printable import printable

LARGEST_STEP: Final = 1 << 53
_MIXED: Final = 0.1
"""More steps back than this part of the rows are no restarts but several writers."""


@dataclass(slots=True)
class Axis:
    """The column that counts."""

    name: str | None
    """None: rows are counted."""
    kind: str
    """"step", "epoch" or "row"."""


@dataclass(slots=True)
class Order:
    """The rows that are kept, in order, and their steps."""

    rows: Rows
    steps: NDArray[np.int64]
    resumed_at: tuple[int, ...] = ()
    """Steps from which the file goes on after having been further."""


def find_axis(table: Table, short: Mapping[str, str], asked: Mapping[str, str]) -> Axis:
    """The best column to count by; one that `asked` maps to "step" or "epoch" goes first."""
    for name, ours in asked.items():
        if ours in ("step", "epoch"):
            return Axis(name, ours)
    candidates: list[tuple[int, int, str]] = []
    for place, name in enumerate(table.columns):
        rank = STEPS.get(words(short.get(name, name)))
        if rank is not None and name not in asked:
            rows, values = table.column(name)
            if len(rows) >= 0.2 * table.num_rows and _are_whole(values) and not _is_constant(values):
                candidates.append((rank, place, name))
    if candidates:
        return Axis(min(candidates)[2], "step")
    epoch = find_epochs(table, short, asked)
    if epoch is not None:
        rows, values = table.column(epoch)
        if _are_whole(values) and len(np.unique(values)) >= 0.3 * len(values):
            return Axis(epoch, "epoch")
    return Axis(None, "row")


def find_epochs(table: Table, short: Mapping[str, str], asked: Mapping[str, str]) -> str | None:
    """The column of epochs, if there is one."""
    return next((name for name in table.columns if words(short.get(name, name)) in EPOCHS and name not in asked), None)


def steps_of_rows(table: Table, axis: Axis, notes: list[str]) -> NDArray[np.int64]:
    """The step of each row [R]; rows without one take that of the row before."""
    num, first_row = table.num_rows, table.first_row
    if axis.name is None or axis.name not in table.columns:
        return np.arange(first_row + 1, first_row + num + 1)
    rows, values = table.column(axis.name)
    good = np.isfinite(values) & (np.abs(values) < LARGEST_STEP)
    rows, values = rows[good], values[good]
    if not len(rows):
        return np.arange(first_row + 1, first_row + num + 1)
    steps = np.rint(values).astype(np.int64)
    if (least := int(steps.min())) < 0:
        notes.append(f"{printable(axis.name, limit=60)} begins at {least}: it was counted from 0")
        steps = steps - least
    if len(rows) == num:
        return steps
    notes.append(
        f"{format.count(num - len(rows))} of {format.counted(num, 'row')} without {printable(axis.name, limit=60)}: "
        "given that of the row before"
    )
    where = np.zeros(num, np.int64)
    where[rows] = np.arange(len(rows))
    return steps[np.maximum.accumulate(where)]


def order_of(steps: NDArray[np.int64], main: Rows, epochs: Floats | None, notes: list[str]) -> Order:
    """The rows in the order of their steps; `main` are the rows of the column that is logged most regularly."""
    all_rows = np.arange(len(steps))
    back = np.flatnonzero(np.diff(steps) < 0) + 1
    if not len(back):
        return Order(all_rows, steps)
    if epochs is not None and (counted := _across_epochs(steps, back, epochs)) is not None:
        notes.append("the steps begin anew in each epoch: they were counted on")
        return Order(all_rows, counted)
    mains = steps[main]
    if len(np.unique(mains)) == len(mains) or len(back) > _MIXED * len(steps):
        order = np.argsort(steps, kind="stable")
        what = "more than one process seems to have written them" if len(np.unique(mains)) < len(mains) else ""
        notes.append("the rows are not in the order of their steps: they were sorted" + (what and "; " + what))
        return Order(order, steps[order])
    begin, num_runs = 0, 1
    for at in back.tolist():
        if steps[at] <= steps[begin] + _usual_gap(steps[begin:at]):
            begin, num_runs = at, num_runs + 1
    if num_runs > 1:
        notes.append(
            f"the file holds {num_runs} runs, one after the other: the last was read, of "
            f"{format.count(len(steps) - begin)} rows; give each a file of its own to read the others"
        )
    kept = np.ones(len(steps), bool)
    kept[:begin] = False
    resumed = [int(at) for at in back.tolist() if at > begin]
    least = LARGEST_STEP
    bounds = [begin, *resumed, len(steps)]
    for first, last in reversed(list(itertools.pairwise(bounds))):
        kept[first:last] &= steps[first:last] < least
        least = min(least, int(steps[first:last].min()))
    if resumed:
        where = ", ".join(format.count(int(steps[at])) for at in resumed[:5]) + (" …" if len(resumed) > 5 else "")
        notes.append(
            f"the steps go back at step {where}, as after a resume: of steps that are there twice the later was read"
        )
    rows = np.flatnonzero(kept)
    rows = rows[np.argsort(steps[rows], kind="stable")]
    return Order(rows, steps[rows], tuple(int(steps[at]) for at in resumed))


def _across_epochs(steps: NDArray[np.int64], back: NDArray[np.int64], epochs: Floats) -> NDArray[np.int64] | None:
    """Steps over all epochs, when they go back exactly where the epoch rises; else None."""
    if len(epochs) != len(steps) or not (np.isfinite(epochs).all() and _are_whole(epochs)):
        return None
    if not (epochs[back] > epochs[back - 1]).all() or (np.diff(epochs) < 0).any():
        return None
    first = int(steps.min())
    if (steps[back] > first + max(1, _usual_gap(steps))).any():
        return None
    length = int(steps.max()) + (1 if first == 0 else 0)
    counted: NDArray[np.int64] = steps + (epochs - epochs[0]).astype(np.int64) * length
    return counted


def _usual_gap(steps: NDArray[np.int64]) -> int:
    gaps = np.diff(steps)
    gaps = gaps[gaps > 0]
    return int(np.median(gaps)) if len(gaps) else 1


def _are_whole(values: Floats) -> bool:
    finite = values[np.isfinite(values)]
    return bool(len(finite)) and bool((finite == np.rint(finite)).all()) and bool((np.abs(finite) < LARGEST_STEP).all())


def _is_constant(values: Floats) -> bool:
    return len(values) > 1 and bool((values == values[0]).all())
