"""A run's metrics as one tidy table, for spreadsheets and data frames: a row for each value, in CSV or Parquet.

    run,branch,step,time,metric,value,unit

`step` counts from 1, `time` is UTC, `value` a number (`nan`, `inf` and `-inf` where it is none). One line of pandas
makes a column of each metric: `table.pivot_table(index="step", columns="metric", values="value")`.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from trimtab.config.registry import require_module
from trimtab.errors import StorageError, UsageError
from trimtab.runs.directory import RunDirectory
from trimtab.runs.metrics import METRICS
from trimtab.runs.record import read_record, values_of
from trimtab.runs.statistics import read_statistics

SUFFIXES: Final = (".csv", ".parquet")
_ROWS_A_BATCH: Final = 100_000
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would run."""


class Row(NamedTuple):
    """One value."""

    run: str
    branch: int
    step: int
    time: datetime | None
    metric: str
    value: float
    unit: str


def rows_of(run: RunDirectory, *, layers: bool = False, all_branches: bool = False) -> Iterator[Row]:
    """Every value that the record holds, in its order; with `layers` then those of the layers, as they were kept.

    Of the branch that survived, unless `all_branches`. Raises: StorageError, UsageError.
    """
    for line in read_record(run.record, all_branches=all_branches):
        branch, when = line["branch"], datetime.fromtimestamp(line["time"], UTC)
        match line["event"]:
            case "StepsEnded":
                first, last = line["first_step"], line["last_step"]
                for name, found in line["per_step"].items():
                    series = found if isinstance(found, list) else itertools.repeat(found, last - first + 1)
                    for step, value in enumerate(series, first):
                        yield Row(run.name, branch, step, when, name, float(value), _unit(name))
                for name, value in values_of(line).items():
                    yield Row(run.name, branch, last, when, name, float(value), _unit(name))
            case "EvaluationEnded":
                for name, value in line["metrics"].items():
                    yield Row(run.name, branch, line["step"], when, name, float(value), _unit(name))
    if layers:
        yield from _of_layers(run)


def _of_layers(run: RunDirectory) -> Iterator[Row]:
    """The values of layers, of which the branch and the time are not kept."""
    steps, columns, values = read_statistics(run.statistics)
    for step, row in zip(steps.tolist(), values, strict=True):
        for place in np.flatnonzero(~np.isnan(row)).tolist():
            yield Row(run.name, -1, step, None, columns[place], float(row[place]), _unit(columns[place]))


def _unit(name: str) -> str:
    plain = name.partition("@")[0]
    first, _, last = plain.rpartition("/")
    family = f"{first.split('/')[0]}/<name>/{last}"
    known = METRICS.get(plain) or METRICS.get(family) or METRICS.get(f"validation/{last}")
    return known.unit if known is not None else ""


def write_metrics(run: RunDirectory, out: Path, *, layers: bool = False, all_branches: bool = False) -> dict[str, Any]:
    """Write them at `out`, whole or not at all, in the form that its ending says; how many rows and metrics.

    Raises: UsageError where there is something at `out`, or its ending says nothing; ConfigError where Parquet is asked
    for and pyarrow not installed; StorageError.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--metrics: the file must end in {' or '.join(SUFFIXES)}. Received: {str(out)!r}")
    if out.exists():
        raise UsageError(f"--metrics: {out} is there already", hint="name a new file")
    is_parquet = out.suffix.lower() == ".parquet"
    if is_parquet:
        require_module("pyarrow", "parquet", f"--metrics {out}")
    names: set[str] = set()
    rows = _noted(rows_of(run, layers=layers, all_branches=all_branches), names)
    aside = out.with_name(f".{out.name}.tmp-{os.getpid()}")
    try:
        count = _write_parquet(rows, aside) if is_parquet else _write_csv(rows, aside)
        os.replace(aside, out)
    except OSError as error:
        raise StorageError(f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()
    return {"run": str(run.path), "out": str(out), "rows": count, "metrics": len(names), "bytes": out.stat().st_size}


def _noted(rows: Iterable[Row], names: set[str]) -> Iterator[Row]:
    for row in rows:
        names.add(row.metric)
        yield row


def _write_csv(rows: Iterable[Row], path: Path) -> int:
    count = 0
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        for row in rows:
            branch = "" if row.branch < 0 else row.branch
            when = "" if row.time is None else row.time.isoformat(timespec="milliseconds")
            writer.writerow((_harmless(row.run), branch, row.step, when, _harmless(row.metric), row.value, row.unit))
            count += 1
    return count


def _harmless(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _write_parquet(rows: Iterable[Row], path: Path) -> int:
    import pyarrow
    import pyarrow.parquet

    kinds = {
        "run": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
        "branch": pyarrow.int32(),
        "step": pyarrow.int64(),
        "time": pyarrow.timestamp("ms", tz="UTC"),
        "metric": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
        "value": pyarrow.float64(),
        "unit": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
    }
    schema, count = pyarrow.schema(list(kinds.items())), 0
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        iterator = iter(rows)
        while batch := list(itertools.islice(iterator, _ROWS_A_BATCH)):
            columns = list(zip(*batch, strict=True))
            columns[1] = tuple(None if branch < 0 else branch for branch in columns[1])
            arrays = [pyarrow.array(column, kind) for column, kind in zip(columns, kinds.values(), strict=True)]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
            count += len(batch)
    return count
