"""Documents from CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, final

from trimtab.data.corpora import Corpus, Document, SourceFile, files_at, require_column, undecodable
from trimtab.data.left_out import LeftOut
from trimtab.errors import DataError

_LONGEST: Final = 2**31 - 1
"""Characters of a cell: the most that every platform takes."""


def csv_corpus(
    path: str,
    column: str = "text",
    delimiter: str = ",",
    *,
    where: str = "data.source",
    wanted: Mapping[str, str] | None = None,
) -> Corpus:
    """CSV with a header (RFC 4180), a file or the .csv files of a folder; a document is a row of `column`.

    An empty cell of a column in `wanted` is "".
    """
    files, _ = files_at(path, "*.csv", where)
    reading = {"name": "csv", "column": column, "delimiter": delimiter}
    reader = _CsvReader(column, delimiter, where, wanted or {})
    return Corpus(f"CSV {path}, column {column!r}", reading, files, reader.read)


@final
@dataclass(frozen=True, slots=True)
class _CsvReader:
    column: str
    delimiter: str
    where: str
    wanted: Mapping[str, str]

    def read(self, file: SourceFile, skipped: LeftOut) -> Iterator[Document]:
        """What is no CSV, or no UTF-8, ends its file: where the next row begins is not known then."""
        try:
            yield from self._rows(file, skipped)
        except DataError as error:
            skipped.pass_over(error)

    def _rows(self, file: SourceFile, skipped: LeftOut) -> Iterator[Document]:
        with file.path.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.reader(stream, delimiter=self.delimiter, strict=True)
            rows = _of_any_length(table)
            try:
                header = next(rows, [])
                for where, name in {f"{self.where}.column": self.column, **self.wanted}.items():
                    require_column(name, header, where, file.path)
                text_at, *wanted_at = (header.index(name) for name in (self.column, *self.wanted.values()))
                for row in rows:
                    if not row:
                        continue
                    if len(row) != len(header):
                        skipped.pass_over(
                            DataError(
                                f"{file.path}:{table.line_num}: the row ends here with {len(row)} cells, and the "
                                f"header has {len(header)}"
                            )
                        )
                        continue
                    if text := row[text_at]:
                        fields = tuple(row[index] for index in wanted_at)
                        yield Document(f"{file.name}:{table.line_num}", text, identity=text, fields=fields)
                    else:
                        skipped["empty"] += 1
            except csv.Error as error:
                raise DataError(f"{file.path}:{table.line_num}: is not CSV: {error}") from error
            except UnicodeDecodeError as error:
                place = f"{file.path}:{table.line_num + 1}"
                raise undecodable(
                    file.path, place, error.start, error.object[error.start], of="of a part of the file"
                ) from error


def _of_any_length(table: Iterator[list[str]]) -> Iterator[list[str]]:
    """The rows of `table`, however long a cell is; the limit is the whole program's, and is raised for a row only."""
    while True:
        before = csv.field_size_limit(_LONGEST)
        try:
            row = next(table, None)
        finally:
            csv.field_size_limit(before)
        if row is None:
            return
        yield row
