"""All values of a run in one file: JSON, CSV or Parquet."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.errors import StorageError, UsageError
from trimtab.runs.columns import columns_of_record
from trimtab.runs.files import json_value, write_json


def save_columns(record: Path, path: Path) -> Path:
    """Every value in a record as .json, .csv or .parquet. Raises: as `TrainingLogger.save_metrics`."""
    ending = path.suffix.lower()
    if ending not in (".json", ".csv", ".parquet"):
        raise UsageError(f"{path}: metrics are saved as .json, .csv or .parquet")
    columns = columns_of_record(record)
    if ending == ".json":
        content = {name: {"steps": steps.tolist(), "values": values} for name, (steps, values) in columns.items()}
        write_json(path, {"metrics": json_value(content)})
        return path
    steps = np.unique(np.concatenate([steps for steps, _ in columns.values()])) if columns else np.empty(0, np.int64)
    table: dict[str, Any] = {"step": steps}
    for name, (where, values) in columns.items():
        column = np.full(len(steps), np.nan)
        column[np.searchsorted(steps, where)] = values
        there = np.zeros(len(steps), bool)
        there[np.searchsorted(steps, where)] = True
        table[name] = np.ma.masked_array(column, ~there)
    try:
        if ending == ".csv":
            with open(path, "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(table)
                cells = [["" if value is None else value for value in column.tolist()] for column in table.values()]
                writer.writerows(zip(*cells, strict=True))
            return path
        if importlib.util.find_spec("pyarrow") is None:
            raise UsageError(f"{path}: Parquet needs pyarrow", hint="pip install 'trimtab[parquet]'")
        import pyarrow
        import pyarrow.parquet

        arrays = {
            name: pyarrow.array(np.asarray(column), mask=np.ma.getmaskarray(column) if name != "step" else None)
            for name, column in table.items()
        }
        pyarrow.parquet.write_table(pyarrow.table(arrays), path)
        return path
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error})") from error
