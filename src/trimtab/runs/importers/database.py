"""SQLite stores of MLflow (`mlflow.db`) and trackio (`<project>.db`), by the standard library alone.

A store holds many runs; one is read: the newest, or the one that is named behind the file, `mlflow.db/RUN`.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from trimtab.errors import DataError
from trimtab.runs.importers.cells import Block, block_of_records
from trimtab.runs.importers.json_lines import parse
from trimtab.runs.importers.points import Point, blocks_of_points
from trimtab.runs.importers.stores import choose
from trimtab.runs.importers.table import MAX_COLUMNS, Source
from trimtab.runs.printable import printable

MARK: Final = b"SQLite format 3\0"
ROWS_A_BLOCK: Final = 5_000
_LONGEST_SECONDS: Final = 60.0
_OPCODES_BETWEEN_LOOKS: Final = 100_000
_LARGEST_VALUE_BYTES: Final = 1 << 24
_MOST_RUNS: Final = 100_000


def open_database(path: Path, run: str | None) -> Source:
    """The metrics of a run in a store. Raises: DataError when it is none, or damaged; UsageError for an unknown run."""
    name = printable(str(path))
    try:
        with contextlib.closing(_connect(path)) as connection:
            columns = _columns(connection, "metrics")
            if {"run_uuid", "key", "value", "step"} <= columns:
                return _mlflow(connection, path, run)
            if {"run_name", "step", "metrics"} <= columns:
                return _trackio(connection, path, run, "run_id" if "run_id" in columns else "run_name")
    except (sqlite3.Error, ValueError, OverflowError) as error:
        raise DataError(f"{name}: {_why(error)}") from error
    raise DataError(f"{name}: is a database without metrics", hint="stores of MLflow and trackio can be read")


def _connect(path: Path) -> sqlite3.Connection:
    """Only to read, and nothing that the file brings along may be called."""
    wal = path.with_name(path.name + "-wal")
    has_wal = wal.is_file() and wal.stat().st_size > 0
    # Without a journal beside it nothing may be written next to the file, which a plain connection does.
    uri = path.resolve().as_uri() + ("?mode=ro" if has_wal else "?mode=ro&immutable=1")
    connection = sqlite3.connect(uri, uri=True, timeout=5.0)
    end = time.monotonic() + _LONGEST_SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > end, _OPCODES_BETWEEN_LOOKS)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_VALUE_BYTES)  # also of what a column is computed as
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    for pragma in ("trusted_schema=OFF", "query_only=ON", "cell_size_check=ON", "mmap_size=0"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _why(error: Exception) -> str:
    if isinstance(error, sqlite3.OperationalError) and "interrupted" in str(error):
        return f"is a database that takes longer than {_LONGEST_SECONDS:.0f} seconds to read"
    return f"is a damaged database ({printable(str(error), limit=100)})"


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    """Of a table, which must be a plain one: neither a view, whose rows may have no end, nor virtual."""
    found = connection.execute("SELECT sql FROM sqlite_master WHERE type='table' AND name=?", (table,)).fetchone()
    if found is None or not str(found[0]).lstrip().upper().startswith("CREATE TABLE"):
        return set()
    return {str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})")}


def _mlflow(connection: sqlite3.Connection, path: Path, run: str | None) -> Source:
    found = connection.execute(
        "SELECT run_uuid, COUNT(*), MAX(timestamp) FROM metrics GROUP BY run_uuid ORDER BY MAX(timestamp) DESC"
    ).fetchmany(_MOST_RUNS)
    labels, told = {}, bool(_columns(connection, "runs"))
    with contextlib.suppress(sqlite3.Error, ValueError):
        if told:
            labels = dict(connection.execute("SELECT run_uuid, name FROM runs").fetchmany(_MOST_RUNS))
    source = Source("mlflow", iter(()))
    chosen = choose([(str(one[0]), str(labels.get(one[0]) or "")) for one in found], run, path, source.notes)
    source.blocks = _guarded(blocks_of_points(_mlflow_points(path, chosen)), source)
    with contextlib.suppress(sqlite3.Error, ValueError):
        if told:
            status = connection.execute("SELECT status FROM runs WHERE run_uuid=?", (chosen,)).fetchone()
            source.finished = status is not None and status[0] == "FINISHED"
    return source


def _mlflow_points(path: Path, run: str) -> Iterator[Point]:
    with contextlib.closing(_connect(path)) as connection:
        rows = connection.execute(
            "SELECT step, key, value, is_nan FROM metrics WHERE run_uuid=? ORDER BY step, timestamp", (run,)
        )
        for step, key, value, is_nan in rows:
            if isinstance(step, int) and isinstance(value, int | float):
                yield step, str(key), math.nan if is_nan else _unbounded(float(value))


def _unbounded(value: float) -> float:
    """MLflow puts the largest numbers for infinity."""
    return math.copysign(math.inf, value) if abs(value) >= 1.79e308 else value


def _trackio(connection: sqlite3.Connection, path: Path, run: str | None, key: str) -> Source:
    found = connection.execute(
        f"SELECT {key}, MAX(run_name), MAX(id) FROM metrics GROUP BY {key} ORDER BY MAX(id) DESC"
    ).fetchmany(_MOST_RUNS)
    source = Source("trackio", iter(()))
    chosen = choose([(str(one[0]), str(one[1])) for one in found], run, path, source.notes)
    source.blocks = _guarded(_trackio_blocks(path, chosen, key), source)
    return source


def _trackio_blocks(path: Path, run: str, key: str) -> Iterator[Block]:
    with contextlib.closing(_connect(path)) as connection:
        rows = connection.execute(f"SELECT step, metrics FROM metrics WHERE {key}=? ORDER BY id", (run,))
        while some := rows.fetchmany(ROWS_A_BLOCK):
            records: list[dict[str, Any]] = []
            for step, content in some:
                found = parse(content) if isinstance(content, str | bytes) and len(content) < 1 << 20 else None
                if isinstance(found, dict) and isinstance(step, int):
                    records.append({"step": step} | {name: cell for name, cell in found.items() if name != "step"})
            if records:
                yield block_of_records(records, MAX_COLUMNS)


def _guarded(blocks: Iterator[Block], source: Source) -> Iterator[Block]:
    """Blocks as far as the database can be read."""
    try:
        yield from blocks
    except (sqlite3.Error, ValueError, OverflowError) as error:
        source.notes.append(f"it {_why(error)}: the rest is lost")
