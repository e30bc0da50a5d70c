"""Cells of a foreign table as numbers, whatever way they are spelled."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]

MAX_DEPTH: Final = 8
"""Objects within objects deeper than this are left out."""

SPELLINGS: Final[Mapping[str, float]] = {
    "nan": math.nan,
    "-nan": math.nan,
    "nan(ind)": math.nan,
    "-nan(ind)": math.nan,
    "1.#qnan": math.nan,
    "-1.#qnan": math.nan,
    "1.#ind": math.nan,
    "-1.#ind": math.nan,
    "1.#inf": math.inf,
    "-1.#inf": -math.inf,
    "∞": math.inf,
    "+∞": math.inf,
    "-∞": -math.inf,
    "true": 1.0,
    "false": 0.0,
}
"""What `float` does not know, or does not know on every system."""
_TENSOR: Final = re.compile(r"(?:tensor|array|np\.float\d+|torch\.tensor)\(\s*\[?([^\],()]{1,40})")
_LONGEST_NUMBER: Final = 200


@dataclass(slots=True)
class Block:
    """Some rows of a table by column: the rows that hold a number, and the numbers."""

    num_rows: int
    numbers: dict[str, tuple[Rows, Floats]] = field(default_factory=dict)
    texts: dict[str, tuple[Rows, list[str]]] = field(default_factory=dict)
    """Columns whose cells are words."""
    spelled: set[str] = field(default_factory=set)
    """Columns of numbers that JSON gave as text."""
    nulls: set[str] = field(default_factory=set)
    """Columns in which JSON gave null."""


def number(cell: Any) -> float | None:
    """The number in a cell; None when there is none."""
    try:
        if isinstance(cell, str):
            return None if len(cell) > _LONGEST_NUMBER else _spelled(cell)
        if isinstance(cell, list):
            return number(cell[0]) if len(cell) == 1 and not isinstance(cell[0], list) else None
        return None if cell is None or isinstance(cell, Mapping) else float(cell)
    except OverflowError:
        return math.inf if cell > 0 else -math.inf
    except (TypeError, ValueError):
        return None


def _spelled(cell: str) -> float | None:
    text = cell.strip().strip("\"'").strip()
    try:
        return float(text)
    except ValueError:
        pass
    known = SPELLINGS.get(text.lower())
    if known is not None:
        return known
    if (tensor := _TENSOR.match(text)) is not None:
        return _spelled(tensor[1])
    if text.endswith("%"):
        part = _spelled(text[:-1])
        return None if part is None else part / 100
    if text.count(",") == 1 and "." not in text:
        return _spelled(text.replace(",", "."))
    return None


def add_cells(block: Block, name: str, rows: Sequence[int], cells: Sequence[Any]) -> None:
    """Put a column into `block`: its numbers, or its words where there is no number."""
    try:
        values = np.array(list(map(float, cells)), np.float64)
        block.numbers[name] = np.asarray(rows, np.int64), values
        return
    except (TypeError, ValueError, OverflowError):
        pass
    parsed = [number(cell) for cell in cells]
    there = [index for index, value in enumerate(parsed) if value is not None]
    if there:
        at = np.fromiter((rows[index] for index in there), np.int64, count=len(there))
        block.numbers[name] = at, np.array([parsed[index] for index in there], np.float64)
    words = [index for index, value in enumerate(parsed) if value is None and isinstance(cells[index], str)]
    words = [index for index in words if 0 < len(cells[index]) <= _LONGEST_NUMBER]
    if words:
        at = np.fromiter((rows[index] for index in words), np.int64, count=len(words))
        block.texts[name] = at, [cells[index].strip() for index in words]


def block_of_records(records: Sequence[Mapping[str, Any]], max_columns: int) -> Block:
    """Rows that are objects, as columns; objects in them become `outer/inner`. At most `max_columns` columns."""
    block = Block(len(records))
    shapes: dict[tuple[str, ...], tuple[list[int], list[Iterable[Any]]]] = {}
    for row, record in enumerate(records):
        where, values = shapes.setdefault(tuple(record), ([], []))
        where.append(row)
        values.append(record.values())
    columns: dict[str, tuple[list[int], list[Any]]] = {}
    for names, (where, values) in shapes.items():
        for name, found in zip(names, zip(*values, strict=True), strict=True):
            _place(columns, name, where, found, 0, max_columns)
    for name, (rows, cells) in columns.items():
        kinds = set(map(type, cells))
        if type(None) in kinds:
            block.nulls.add(name)
        if len(shapes) > 1:
            order = sorted(range(len(rows)), key=rows.__getitem__)
            rows, cells = [rows[index] for index in order], [cells[index] for index in order]
        add_cells(block, name, rows, cells)
        if str in kinds and name in block.numbers:
            block.spelled.add(name)
    return block


def _place(
    columns: dict[str, tuple[list[int], list[Any]]],
    name: str,
    rows: Sequence[int],
    cells: Sequence[Any],
    depth: int,
    max_columns: int,
) -> None:
    if any(isinstance(cell, dict) for cell in cells):
        for row, cell in zip(rows, cells, strict=True):
            if not isinstance(cell, dict):
                _place(columns, name, [row], [cell], depth, max_columns)
            elif depth < MAX_DEPTH:
                for inner, value in cell.items():
                    _place(columns, f"{name}/{inner}", [row], [value], depth + 1, max_columns)
        return
    if name not in columns:
        if len(columns) >= max_columns:
            return
        columns[name] = ([], [])
    columns[name][0].extend(rows)
    columns[name][1].extend(cells)
