"""A foreign table in memory: columns of numbers that grow block by block, whatever the file was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from trimtab.runs.importers.cells import Block, Floats, Rows
from trimtab.runs.importers.meter import Meter
from trimtab.runs.importers.names import words
from trimtab.runs.importers.trainers import Trainer
from trimtab.runs.importers.vocabulary import EPOCHS, METRIC_COLUMNS, SIDE_COLUMNS, SIDES, STEPS, TIMES, VALUE_COLUMNS

MAX_COLUMNS: Final = 10_000
BUDGET_VALUES: Final = 1_200_000
"""Numbers that are held at once; a longer file is read on in its own order."""
TORN: Final = "the last line is torn: it was left out"


@dataclass(slots=True)
class Source:
    """An opened file: its blocks, and what its reader knows and learns of it."""

    format: str
    blocks: Iterator[Block]
    notes: list[str] = field(default_factory=list)
    """Filled while the blocks are read."""
    facts: dict[str, Any] = field(default_factory=dict)
    short: dict[str, str] = field(default_factory=dict)
    """Columns whose names have more in front (a run's name) to what they measure."""
    left_out: list[str] = field(default_factory=list)
    """Columns that the reader passes over."""
    finished: bool = False
    """Whether the file says that the run came to its end."""
    trainer: Trainer | None = None
    """Whose words the first lines are in."""
    cut_in: str | None = None
    """The last column of a file that ends without the end of a line: its last cell may lack characters. Known when the
    last block is given."""
    resumed_at: list[int] = field(default_factory=list)
    """The first steps of later attempts, where lines say that a run was resumed. Filled while the blocks are read."""
    meter: Meter | None = None
    """Told by a reader of its own file what it has read."""


@dataclass(slots=True)
class Table:
    """Columns of numbers and the rows where they are."""

    first_row: int = 0
    """The place of its first row in the file."""
    num_rows: int = 0
    num_values: int = 0
    columns: dict[str, list[tuple[Rows, Floats]]] = field(default_factory=dict)
    spelled: set[str] = field(default_factory=set)
    nulls: set[str] = field(default_factory=set)
    passed_over: set[str] = field(default_factory=set)
    """Columns of words, and those beyond the number that are kept."""

    def add(self, block: Block) -> None:
        """Append a block's rows."""
        moved: dict[int, Rows] = {}  # columns often share their rows
        for name, (rows, values) in spread(block).items():
            if name not in self.columns and len(self.columns) >= MAX_COLUMNS:
                continue
            if id(rows) not in moved:
                moved[id(rows)] = rows + self.num_rows
            where = moved[id(rows)]
            self.columns.setdefault(name, []).append((where, values))
            self.num_values += len(values)
        self.num_rows += block.num_rows
        self.spelled |= block.spelled
        self.nulls |= block.nulls
        if len(self.passed_over) < MAX_COLUMNS:
            self.passed_over |= block.texts.keys()

    def drop_last_row(self) -> None:
        """Take the last row away, and columns that have numbers in it alone."""
        self.num_rows -= 1
        for name in list(self.columns):
            rows, values = self.column(name)
            if rows[-1] == self.num_rows:
                self.columns[name][:] = [(rows[:-1], values[:-1])]
                self.num_values -= 1
                if len(rows) == 1:
                    del self.columns[name]

    def column(self, name: str) -> tuple[Rows, Floats]:
        """Rows [N] and numbers [N] of a column."""
        parts = self.columns[name]
        if len(parts) > 1:
            parts[:] = [(np.concatenate([rows for rows, _ in parts]), np.concatenate([part for _, part in parts]))]
        return parts[0]


def spread(block: Block) -> dict[str, tuple[Rows, Floats]]:
    """The columns of a block; where a column of words says whose the numbers are, each side has its own."""
    numbers = block.numbers
    value_name = next((name for name in numbers if words(name) in VALUE_COLUMNS), None)
    for name, (rows, texts) in block.texts.items():
        if value_name is not None and words(name) in METRIC_COLUMNS:
            kept = {value_name}
        elif words(name) in SIDE_COLUMNS and sum(text.lower() in SIDES for text in texts) > 0.5 * len(texts):
            kept = {other for other in numbers if not _places(other)}
        else:
            continue
        labels = np.zeros(block.num_rows, np.int64)
        number_of: dict[str, int] = {}
        labels[rows] = [number_of.setdefault(text, len(number_of) + 1) for text in texts]
        divided: dict[str, tuple[Rows, Floats]] = {}
        for other, (where, values) in numbers.items():
            if other not in kept:
                divided[other] = where, values
                continue
            for text, label in (("", 0), *number_of.items()):
                mask = labels[where] == label
                if mask.any():
                    new = other if not text else text if kept == {value_name} else f"{text}/{other}"
                    divided[new] = where[mask], values[mask]
        numbers = divided
        block.texts.pop(name)
        break
    return numbers


def _places(name: str) -> bool:
    return words(name) in STEPS or words(name) in EPOCHS or words(name) in TIMES
