"""Several processes of one run: their statistics reduced, and their records read as one.

Rank 0 writes record.jsonl, rank 3 record.rank-00003.jsonl, each for itself: none waits for another.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import StorageError
from trimtab.runs.columns import Floats, Steps, columns_of
from trimtab.runs.record import RecordReader, surviving

MOST_SHOWN: Final = 16
"""Of more ranks than this only what they come to together becomes series."""
REDUCTIONS: Final = ("min", "mean", "max", "min_rank", "max_rank")
_NAME: Final = re.compile(r"record\.rank-(\d{5})\.jsonl")


class OverRanks(NamedTuple):
    """Columns [C] of several ranks as one; NaN, and rank -1, where none has measured."""

    minimum: Floats
    mean: Floats
    maximum: Floats
    lowest_rank: NDArray[np.int64]
    highest_rank: NDArray[np.int64]


def over_ranks(values_RC: Floats) -> OverRanks:
    """Minimum, mean, maximum, and whose they are; NaN: not measured by that rank. Of equals the first rank.

    An infinite value counts as such. Raises: ValueError for what is no table of at least one rank.
    """
    if values_RC.ndim != 2 or not len(values_RC):
        raise ValueError(f"values are [ranks, columns], of one rank at least. Received: {values_RC.shape}")
    there = ~np.isnan(values_RC)
    some = there.any(axis=0)
    low = np.where(there, values_RC, np.inf)
    high = np.where(there, values_RC, -np.inf)
    with np.errstate(invalid="ignore"):  # inf - inf
        total = np.where(there, values_RC, 0.0).sum(axis=0)
    columns = np.arange(values_RC.shape[1])
    lowest = np.argmax(there & (low == low.min(axis=0)), axis=0)
    highest = np.argmax(there & (high == high.max(axis=0)), axis=0)
    return OverRanks(
        np.where(some, values_RC[lowest, columns], np.nan),
        np.where(some, total / np.maximum(there.sum(axis=0), 1), np.nan),
        np.where(some, values_RC[highest, columns], np.nan),
        np.where(some, lowest, -1),
        np.where(some, highest, -1),
    )


def as_metrics(names: Sequence[str], reduced: OverRanks) -> dict[str, float]:
    """`ranks/<metric>/<how>` to its value, of those that some rank has measured."""
    found: dict[str, float] = {}
    for index, name in enumerate(names):
        if reduced.highest_rank[index] >= 0:
            found |= {
                f"ranks/{name}/{how}": float(part[index]) for how, part in zip(REDUCTIONS, _parts(reduced), strict=True)
            }
    return found


def _parts(reduced: OverRanks) -> tuple[NDArray[Any], ...]:
    return reduced.minimum, reduced.mean, reduced.maximum, reduced.lowest_rank, reduced.highest_rank


def records_of_ranks(record: Path) -> dict[int, Path]:
    """The records of the further ranks that lie beside `record`, by rank."""
    found: dict[int, Path] = {}
    with contextlib.suppress(OSError):
        for path in sorted(record.parent.iterdir()):
            if (name := _NAME.fullmatch(path.name)) is not None and int(name[1]) > 0:
                found[int(name[1])] = path
    return found


def merged(lines_by_rank: Mapping[int, Iterable[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The lines of all ranks, each with its "rank", by branch, step and rank; those of one rank in their order."""
    every = [dict(line) | {"rank": rank} for rank, lines in sorted(lines_by_rank.items()) for line in lines]
    return sorted(every, key=lambda line: (line["branch"], line["step"], line["rank"]))


def read_ranks(record: Path, *, all_branches: bool = False) -> tuple[dict[int, list[dict[str, Any]]], int]:
    """The lines of every rank by rank, and how many were damaged; of the branch that survived, as rank 0 knows it.

    What a rank's file lost is missing, and a file that cannot be read is as if it had nothing in it.

    Raises: UsageError when a newer trimtab wrote one of them.
    """
    reader = RecordReader(record)
    lines = {0: reader.read()}
    damaged = reader.damaged
    starts = [line for line in lines[0] if line["event"] == "RunStarted"]
    for rank, path in records_of_ranks(record).items():
        reader = RecordReader(path)
        with contextlib.suppress(StorageError):
            found = reader.read()
            lines[rank] = found if all_branches else _surviving_of_rank(starts, found)
        damaged += reader.damaged
    if not all_branches:
        lines[0] = surviving(lines[0])
    return lines, damaged


def _surviving_of_rank(starts: Sequence[dict[str, Any]], lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    own = [line for line in lines if line["event"] != "RunStarted"]
    known = {id(line) for line in starts}
    return [line for line in surviving([*starts, *own]) if id(line) not in known]


def series_of_ranks(
    lines_by_rank: Mapping[int, Iterable[Mapping[str, Any]]],
) -> Iterator[tuple[str, Steps, Floats]]:
    """`rank/<n>/<metric>` of the further ranks, and `ranks/<metric>/<how>` of all, at the steps that any further rank
    has: name, steps [N] and values [N]."""
    columns = {rank: columns_of(lines) for rank, lines in lines_by_rank.items()}
    names = dict.fromkeys(name for rank, found in columns.items() if rank for name in found)
    for name in names:
        having = {rank: found[name] for rank, found in columns.items() if name in found}
        if len(columns) <= MOST_SHOWN:
            yield from ((f"rank/{rank}/{name}", *having[rank]) for rank in having if rank)
        steps = np.unique(np.concatenate([one for rank, (one, _) in having.items() if rank]))
        ranks = sorted(having)
        values_RN = np.full((len(ranks), len(steps)), np.nan)
        for index, rank in enumerate(ranks):
            where, values = having[rank]
            there = np.isin(where, steps)
            values_RN[index, np.searchsorted(steps, where[there])] = values[there]
        reduced = over_ranks(values_RN)
        for how, part in zip(REDUCTIONS, _parts(reduced), strict=True):
            if how.endswith("_rank"):
                part = np.array(ranks)[part].astype(np.float64)
            there = reduced.highest_rank >= 0
            yield f"ranks/{name}/{how}", steps[there], np.asarray(part, np.float64)[there]
