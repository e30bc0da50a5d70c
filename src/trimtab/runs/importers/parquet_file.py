"""Parquet: what neptune-exporter and trackio write, and any table of numbers. Needs pyarrow.

Source: github.com/neptune-ai/neptune-exporter, src/neptune_exporter/model.py (the columns of its files)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from trimtab.errors import DataError
from trimtab.runs import format
from trimtab.runs.importers.cells import Block, Floats
from trimtab.runs.importers.stores import choose
from trimtab.runs.importers.table import MAX_COLUMNS, Source
from trimtab.runs.printable import printable

MARK: Final = b"PAR1"
ROWS_A_BATCH: Final = 20_000
LARGEST_NUM_VALUES: Final = 4_000_000
"""Values of a file with a value a row, which must be held to be put in the order of their steps."""
_LONGEST_TEXT: Final = 1000
_MOST_ROWS: Final = 1_000_000_000
_NEPTUNE: Final = frozenset(("run_id", "attribute_path", "step", "float_value"))
_TRACKIO: Final = frozenset(("run_name", "step", "timestamp"))
_BESIDE: Final = frozenset(("id", "run_id", "run_name", "timestamp", "log_id", "space_id"))
_PART: Final = re.compile(r"(.+_part_)\d+\.parquet")


def parts_of(path: Path) -> list[Path]:
    """All parts of the export that `path` is a part of; itself where it is whole."""
    found = _PART.fullmatch(path.name)
    if found is None:
        return [path]
    parts = [one for one in path.parent.iterdir() if one.name.startswith(found[1]) and _PART.fullmatch(one.name)]
    parts = [one for one in parts if one.is_file()]
    return sorted(parts, key=lambda one: int(re.findall(r"\d+", one.name)[-1][-9:]))[:1000]


def open_parquet(path: Path, run: str | None) -> Source:
    """A file, with its further parts, as a source. Raises: DataError when it cannot be read."""
    name = printable(str(path))
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise DataError(
            f"{name}: is Parquet, which is read with pyarrow", hint="pip install 'trimtab[parquet]'"
        ) from error
    failures = pyarrow.ArrowException, OSError, ValueError, KeyError, OverflowError
    try:
        with parquet.ParquetFile(path) as file:
            columns, num_rows = set(file.schema_arrow.names), file.metadata.num_rows
        if num_rows > _MOST_ROWS:  # which a file of a few megabytes may have
            raise DataError(f"{name}: has {format.count(num_rows)} rows, and no log has more than a thousand million")
        source = Source("neptune" if columns >= _NEPTUNE else "trackio" if columns >= _TRACKIO else "parquet", iter(()))
        if source.format == "neptune":
            blocks = _neptune(parts_of(path), run, source)
        else:
            chosen = _choose(path, columns, run, source) if source.format == "trackio" else None
            blocks = _wide(path, chosen)
        source.blocks = _guarded(blocks, failures, source, name)
    except failures as error:
        raise DataError(f"{name}: is damaged Parquet ({printable(str(error), limit=100)})") from error
    return source


def _guarded(
    blocks: Iterator[Block], failures: tuple[type[BaseException], ...], source: Source, name: str
) -> Iterator[Block]:
    given = False
    try:
        for block in blocks:
            yield block
            given = True
    except DataError:
        raise
    except failures as error:
        what = printable(str(error), limit=100)
        if not given:
            raise DataError(f"{name}: is damaged Parquet ({what})") from error
        source.notes.append(f"the file is damaged ({what}): the rest is lost")


def _batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """Rows; texts stay a dictionary and its places, as a long one that comes in each row would fill the memory."""
    import pyarrow.parquet as parquet
    import pyarrow.types as types

    with parquet.ParquetFile(path) as file:
        kinds = zip(file.schema_arrow.names, file.schema_arrow.types, strict=True)
        texts = [name for name, kind in kinds if types.is_string(kind) or types.is_large_string(kind)]
    with parquet.ParquetFile(path, read_dictionary=texts) as file:
        yield from file.iter_batches(batch_size=ROWS_A_BATCH, columns=columns, use_threads=False)


def _texts(column: Any) -> list[str | None]:
    """The texts of a column; None for those that are longer than a name may be."""
    if not hasattr(column, "dictionary"):  # numbers that stand for runs
        return [None if cell is None else str(cell) for cell in column.to_pylist()]
    found = column.dictionary.cast("large_binary").to_numpy(zero_copy_only=False)
    told = [None if one is None or len(one) > _LONGEST_TEXT else one.decode("utf-8", "replace") for one in found]
    return [None if place is None else told[place] for place in column.indices.to_pylist()]


def _choose(path: Path, columns: set[str], run: str | None, source: Source) -> tuple[str, str]:
    """The column that tells runs apart, and the run to read."""
    key = "run_id" if "run_id" in columns else "run_name"
    names: dict[str, str] = {}
    for batch in _batches(path, list({key, "run_name"})):
        for one, label in zip(_texts(batch.column(key)), _texts(batch.column("run_name")), strict=True):
            names.pop(str(one), None)  # so that the newest is the last
            names[str(one)] = str(label)
    return key, choose(list(reversed(names.items())), run, path, source.notes)


def _wide(path: Path, chosen: tuple[str, str] | None) -> Iterator[Block]:
    """A row a step, a column a metric; with `chosen`, the rows of that run alone."""
    import pyarrow
    import pyarrow.types as types

    for batch in _batches(path):
        if chosen is not None:
            batch = batch.filter(pyarrow.array([one == chosen[1] for one in _texts(batch.column(chosen[0]))]))
        block = Block(batch.num_rows)
        waiting = list(zip(batch.schema.names, batch.columns, strict=True))
        while waiting and len(block.numbers) + len(block.texts) < MAX_COLUMNS:
            name, column = waiting.pop(0)
            if types.is_struct(column.type):
                inner = [f"{name}/{field.name}" for field in column.type]
                waiting[:0] = list(zip(inner, column.flatten(), strict=True))
            elif chosen is not None and name in _BESIDE:
                continue
            elif types.is_boolean(column.type) or types.is_integer(column.type) or types.is_floating(column.type):
                there = np.flatnonzero(np.asarray(column.is_valid().to_numpy(zero_copy_only=False), bool))
                if len(there):
                    values = column.drop_null().to_numpy(zero_copy_only=False).astype(np.float64)
                    block.numbers[name] = there, values
            elif types.is_decimal(column.type):
                _add(block, name, column.cast("float64"))
            elif types.is_dictionary(column.type) and hasattr(column.dictionary, "cast"):
                told = [(row, cell.strip()) for row, cell in enumerate(_texts(column)) if cell]
                if told:
                    block.texts[name] = np.array([row for row, _ in told], np.int64), [cell for _, cell in told]
        if block.num_rows:
            yield block


def _add(block: Block, name: str, column: Any) -> None:
    there = np.flatnonzero(np.asarray(column.is_valid().to_numpy(zero_copy_only=False), bool))
    if len(there):
        block.numbers[name] = there, column.drop_null().to_numpy(zero_copy_only=False).astype(np.float64)


def _neptune(paths: Sequence[Path], run: str | None, source: Source) -> Iterator[Block]:
    """A value a row, metric after metric: put in the order of their steps."""
    by_run: dict[str, dict[str, list[tuple[Floats, Floats]]]] = {}
    num = left_out = 0
    for path in paths:
        for batch in _batches(path, ["run_id", "attribute_path", "step", "float_value"]):
            steps = batch.column("step").cast("float64").to_numpy(zero_copy_only=False)
            values = batch.column("float_value").to_numpy(zero_copy_only=False)
            series = np.asarray(batch.column("step").is_valid().to_numpy(zero_copy_only=False), bool)
            series &= np.asarray(batch.column("float_value").is_valid().to_numpy(zero_copy_only=False), bool)
            runs, names = (np.array(_texts(batch.column(at)), object) for at in ("run_id", "attribute_path"))
            changes = np.flatnonzero((runs[1:] != runs[:-1]) | (names[1:] != names[:-1])) + 1
            for begin, end in zip([0, *changes.tolist()], [*changes.tolist(), len(runs)], strict=True):
                there = np.flatnonzero(series[begin:end]) + begin
                if not len(there):
                    continue
                if num + len(there) > LARGEST_NUM_VALUES:
                    left_out += len(there)
                    continue
                num += len(there)
                columns = by_run.setdefault(str(runs[begin]), {})
                if str(names[begin]) in columns or len(columns) < MAX_COLUMNS:
                    columns.setdefault(str(names[begin]), []).append((steps[there], values[there]))
    if left_out:
        source.notes.append(
            f"only {format.count(LARGEST_NUM_VALUES)} values were read: {format.count(left_out)} were left out"
        )
    chosen = choose([(one, one) for one in reversed(by_run)], run, paths[0], source.notes)
    yield _by_steps(by_run[chosen])


def _by_steps(columns: dict[str, list[tuple[Floats, Floats]]]) -> Block:
    whole = {
        name: (np.concatenate([steps for steps, _ in parts]), np.concatenate([values for _, values in parts]))
        for name, parts in columns.items()
    }
    all_steps = np.unique(np.concatenate([steps for steps, _ in whole.values()]))
    block = Block(len(all_steps))
    block.numbers["step"] = np.arange(len(all_steps)), all_steps
    for name, (steps, values) in whole.items():
        if name == "step":
            continue
        unique, last = np.unique(steps[::-1], return_index=True)
        block.numbers[name] = np.searchsorted(all_steps, unique), values[::-1][last]
    return block
