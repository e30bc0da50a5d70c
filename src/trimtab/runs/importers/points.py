"""Points, each a step, a name and a number, put together as rows: one a step, as far as they come in order."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np

from trimtab.runs.importers.axis import LARGEST_STEP
from trimtab.runs.importers.cells import Block
from trimtab.runs.importers.table import MAX_COLUMNS

Point = tuple[int, str, float]
"""Step, name, number."""
VALUES_A_BLOCK: Final = 60_000


def blocks_of_points(points: Iterable[Point], axis: str = "step") -> Iterator[Block]:
    """Blocks with a column for each name and one, `axis`, for the step; a name that is `axis` itself is left out."""
    steps: list[int] = []
    columns: dict[str, tuple[list[int], list[float]]] = {}
    last_row: dict[str, int] = {}
    num = 0
    for step, name, value in points:
        if name == axis or not -LARGEST_STEP < step < LARGEST_STEP:
            continue
        row = len(steps) - 1
        if row < 0 or steps[row] != step or last_row.get(name, -1) == row:
            steps.append(step)
            row += 1
        if name not in columns:
            if len(columns) >= MAX_COLUMNS:
                continue
            columns[name] = [], []
        last_row[name] = row
        rows, values = columns[name]
        rows.append(row)
        values.append(value)
        num += 1
        if num >= VALUES_A_BLOCK:
            yield _block(steps, columns, axis)
            steps, columns, last_row, num = [], {}, {}, 0
    if steps:
        yield _block(steps, columns, axis)


def _block(steps: list[int], columns: dict[str, tuple[list[int], list[float]]], axis: str) -> Block:
    block = Block(len(steps))
    block.numbers[axis] = np.arange(len(steps)), np.array(steps, np.float64)
    for name, (rows, values) in columns.items():
        block.numbers[name] = np.array(rows, np.int64), np.array(values, np.float64)
    return block


def merged(streams: Iterable[Iterable[Point]]) -> Iterator[Point]:
    """The points of several streams by their steps; each stream keeps its own order."""
    return heapq.merge(*streams, key=_step)


def _step(point: Point) -> int:
    return point[0]


def on_one_axis(points: Iterable[Point], found: Callable[[str], None]) -> Iterator[Point]:
    """Points in the order of their writing, where some names are counted in epochs and others in steps.

    A name whose steps rise while they lie far below those of the others counts something else: it takes the step that
    the others had reached. `found` hears of such names.
    """
    highest = 0
    last: dict[str, int] = {}
    other: set[str] = set()
    for step, name, value in points:
        before = last.get(name)
        last[name] = step
        if name in other or (2 * step < highest and highest > 20 and (before is None or step > before)):
            if before is not None and name not in other and before >= highest / 2:
                highest = step  # it counted like the others: all go back, as after a resume
            else:
                if name not in other:
                    other.add(name)
                    found(name)
                yield highest, name, value
                continue
        elif before is not None and step <= before:
            highest = step
        highest = max(highest, step)
        yield step, name, value
