"""Documents from Parquet."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from trimtab.data.corpora import Corpus, Document, SourceFile, files_at, joined, require_column, undecodable
from trimtab.data.left_out import LeftOut
from trimtab.errors import ConfigError, DataError


def parquet_corpus(
    path: str, column: str = "text", *, where: str = "data.source", wanted: Mapping[str, str] | None = None
) -> Corpus:
    """Parquet, a file or the .parquet files of a folder; a document is a row of `column`.

    Raises:
        ConfigError: pyarrow is not installed.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(
            f"{where}: reading Parquet needs pyarrow, which is not installed: pip install 'trimtab[parquet]'"
        )
    files, _ = files_at(path, "*.parquet", where)
    reading = {"name": "parquet", "column": column}
    return Corpus(
        f"Parquet {path}, column {column!r}", reading, files, _ParquetReader(column, where, wanted or {}).read
    )


@final
@dataclass(frozen=True, slots=True)
class _ParquetReader:
    column: str
    where: str
    wanted: Mapping[str, str]

    def read(self, file: SourceFile, skipped: LeftOut) -> Iterator[Document]:
        """What cannot be understood ends its file: what comes after it is left out, too."""
        try:
            yield from self._rows(file, skipped)
        except DataError as error:
            skipped.pass_over(error)

    def _rows(self, file: SourceFile, skipped: LeftOut) -> Iterator[Document]:
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(file.path) as table:
                self._check(table.schema_arrow, file.path)
                number = 0
                columns = [self.column, *self.wanted.values()]
                for batch in table.iter_batches(batch_size=1024, columns=list(dict.fromkeys(columns))):
                    for value, *fields in zip(*(batch.column(name).to_pylist() for name in columns), strict=True):
                        number += 1
                        text, words = joined(value, self.wanted)
                        if text and not isinstance(text, str):
                            gap = f"{file.path}:{number}: column {self.column!r} holds a list with a gap"
                            skipped.pass_over(DataError(gap))
                        elif text:
                            yield Document(f"{file.name}:{number}", text, text, tuple(fields), words)
                        else:
                            skipped["empty"] += 1
        except pyarrow.ArrowException as error:
            raise DataError(f"{file.path}: cannot be read as Parquet: {error}") from error
        except UnicodeDecodeError as error:
            raise undecodable(file.path, f"{file.path}:{number + 1}", error.start, error.object[error.start]) from error

    def _check(self, schema: Any, path: Path) -> None:
        import pyarrow.types as types

        for where, name in {f"{self.where}.column": self.column, **self.wanted}.items():
            require_column(name, schema.names, where, path)
        kind = schema.field(self.column).type
        value_kind = kind
        if self.wanted and (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
            value_kind = kind.value_type
        if types.is_dictionary(value_kind):
            value_kind = value_kind.value_type
        if not (types.is_string(value_kind) or types.is_large_string(value_kind) or types.is_string_view(value_kind)):
            raise DataError(f"{path}: column {self.column!r} must hold strings. Received: {kind}")
