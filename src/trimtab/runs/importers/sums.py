"""The loss of a log that names its parts alone: a column more, which is their sum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce
from typing import Final

import numpy as np

from trimtab.runs.importers.names import Meaning, meaning
from trimtab.runs.importers.table import Source, Table
from trimtab.runs.unnamed_losses import added_losses

TOGETHER: Final = 0.9
"""Of the rows of one part, in which all stand: what is logged apart is not of one step."""
MOST_NAMED: Final = 4


def sums_in(table: Table, source: Source, meanings: Mapping[str, Meaning]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Ours to the name of a sum and its columns, where neither loss has a column of its own."""
    if not {"train/loss", "validation/loss"}.isdisjoint(one.ours for one in meanings.values()):
        return {}
    short = {
        source.short.get(name, name): name
        for name, one in meanings.items()
        if one.ours.startswith("user/") and meaning(source.short.get(name, name)) is None
    }
    sums = {ours: tuple(short[part] for part in parts) for ours, parts in added_losses(short).items()}
    together = {ours: parts for ours, parts in sums.items() if _stand_together(table, parts)}
    return {ours: (_told(parts), parts) for ours, parts in together.items()} if "train/loss" in together else {}


def add_sums(table: Table, sums: Mapping[str, tuple[str, tuple[str, ...]]]) -> None:
    """Add each sum as a column, in the rows that hold all its parts."""
    for name, parts in sums.values():
        columns = [table.column(part) for part in parts if part in table.columns]
        if len(columns) < len(parts):
            continue
        rows = reduce(np.intersect1d, (where for where, _ in columns))
        total = sum((values[np.searchsorted(where, rows)] for where, values in columns), np.zeros(len(rows)))
        table.columns[name] = [(rows, total)]


def about_sums(sums: Mapping[str, tuple[str, tuple[str, ...]]]) -> Iterator[str]:
    """What a reader must know of them."""
    for ours, (name, parts) in sums.items():
        if ours == "train/loss":
            yield (
                f"no column is known for the whole loss: {name} is taken for it, as if its {len(parts)} parts were "
                "minimized together as they are logged; its height says nothing, its course does"
            )


def _stand_together(table: Table, parts: tuple[str, ...]) -> bool:
    rows = [table.column(part)[0] for part in parts]
    return len(reduce(np.intersect1d, rows)) >= TOGETHER * max(len(one) for one in rows)


def _told(parts: tuple[str, ...]) -> str:
    more = len(parts) - MOST_NAMED
    return " + ".join(parts[:MOST_NAMED]) + (f" + {more} more" if more > 0 else "")
