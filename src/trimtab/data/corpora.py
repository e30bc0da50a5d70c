"""Documents, read from where they lie: installed packages, text files, JSON Lines, Parquet.

A corpus can be read as often as needed and keeps nothing in memory, so that a text may be larger than it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, final

from trimtab.config import (
    CsvSource,
    DatasetSource,
    EmbeddedSource,
    FolderSource,
    JsonLinesSource,
    MixtureSource,
    ParquetSource,
    SourceConfig,
    StreamSource,
    TextSource,
)
from trimtab.config.nearest import did_you_mean, nearest_names
from trimtab.config.paths import require_text
from trimtab.data.left_out import LeftOut
from trimtab.errors import DataError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Document:
    """A text that is one piece."""

    name: str
    """Unique in its corpus and the same wherever the corpus lies: `sympy/core/add.py`, `data.jsonl:17`."""
    text: str
    """Never empty; can be encoded as UTF-8."""
    identity: str
    """What decides whether it is held out: the name of a file, the text of a row (its number may change)."""
    fields: tuple[Any, ...] = ()
    """The other fields of its row that were asked for."""
    words: tuple[str, ...] | None = None
    """Where its row holds a list of words, these; the text has spaces between them."""
    source: str = ""
    """Of several sources, the name of its own."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file, and its name relative to where the corpus begins."""

    name: str
    path: Path


@final
@dataclass(frozen=True, slots=True)
class Corpus:
    """Files, and how documents are read from them."""

    name: str
    """What it is, and where."""
    reading: dict[str, str]
    """What, apart from the files, decides which documents come out."""
    files: tuple[SourceFile, ...]
    read: Callable[[SourceFile, LeftOut], Iterator[Document]]
    counts_files: bool = False
    tells_skipped: bool = True
    """Whether somebody put the files there, who wants to hear of those that were left out."""

    def description(self, skipped: Mapping[str, int]) -> str:
        """Its name, how many files it is, and how many were `skipped` for what reason."""
        left_out = ", ".join(f"{number} {reason}" for reason, number in sorted(skipped.items()))
        text = self.name
        if self.counts_files:
            read = len(self.files) - sum(skipped.values())
            text = f"{read} text file{'' if read == 1 else 's'} in {text}"
        return f"{text} (left out: {left_out})" if left_out and self.tells_skipped else text

    def documents(self, skipped: LeftOut) -> Iterator[Document]:
        """All documents, in the order of the files; those without text are counted in `skipped` by reason.

        Raises:
            DataError: a file cannot be read, or more of it cannot be understood than `skipped` lets pass; it names the
                file and the place.
        """
        for file in self.files:
            try:
                yield from self.read(file, skipped)
            except OSError as error:
                raise _unreadable(file.path, error) from error

    def content_hash(self) -> str:
        """SHA-256 over how it is read, and names and bytes of all files."""
        digest = hashlib.sha256(json.dumps(self.reading, sort_keys=True).encode())
        for file in self.files:
            try:
                with file.path.open("rb") as stream:
                    content = hashlib.file_digest(stream, "sha256").hexdigest()
            except OSError as error:
                raise _unreadable(file.path, error) from error
            digest.update(f"{file.name}\0{content}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def open_corpus(config: SourceConfig, where: str, wanted: Mapping[str, str] | None = None) -> Corpus:
    """The corpus that `config` describes; `where` is the setting that errors name.

    `wanted` are further fields of each row, by the settings that name them; only sources of rows have any.

    Raises:
        DataError: there is nothing there to read.
    """
    match config:
        case StreamSource():
            raise ValueError("a stream is no corpus: it is read while it is trained on")
        case MixtureSource():
            from trimtab.data.mixed import mixed_corpus

            parts = {name: open_corpus(one, f"{where}.sources.{name}", wanted) for name, one in config.sources.items()}
            return mixed_corpus(parts)
        case EmbeddedSource():
            return embedded_corpus(config.packages, where=where)
        case TextSource():
            return text_corpus(config.path, config.pattern, where=where)
        case JsonLinesSource():
            return jsonl_corpus(config.path, config.field, where=where, wanted=wanted)
        case ParquetSource():
            from trimtab.data.parquet_rows import parquet_corpus

            return parquet_corpus(config.path, config.column, where=where, wanted=wanted)
        case DatasetSource():
            from trimtab.data.dataset_rows import dataset_corpus

            return dataset_corpus(config.path, config.column, config.split, where=where, wanted=wanted)
        case CsvSource():
            from trimtab.data.csv_rows import csv_corpus

            return csv_corpus(config.path, config.column, config.delimiter, where=where, wanted=wanted)
        case FolderSource():
            from trimtab.data.folders import folder_corpus

            return folder_corpus(config.path, config.pattern, where=where)


def embedded_corpus(packages: tuple[str, ...], *, where: str = "data.source") -> Corpus:
    """The .py files of installed packages without their tests; nothing is imported. A document is a file."""
    files: list[SourceFile] = []
    versions: list[str] = []
    for package in dict.fromkeys(packages):
        found = _package_files(package)
        if not found:
            raise DataError(
                f"{where}.packages: no .py files of a package {package!r} are installed. Received: {list(packages)}",
                hint=f"pip install {package}, or leave it out of {where}.packages",
            )
        files += found
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(package)
    name = f"Python code and docstrings of {', '.join(versions)}"
    reader = TextReader(skip_binary=True)
    return Corpus(name, {"name": "text"}, tuple(files), reader.read, tells_skipped=False)


def text_corpus(path: str, pattern: str = "*", *, where: str = "data.source") -> Corpus:
    """A text file, or those of a folder whose path matches `pattern`; hidden ones are left out."""
    files, is_folder = files_at(path, pattern, where)
    name = path if is_folder else f"text file {path}"
    return Corpus(name, {"name": "text"}, files, TextReader(skip_binary=is_folder).read, counts_files=is_folder)


def jsonl_corpus(
    path: str, field: str = "text", *, where: str = "data.source", wanted: Mapping[str, str] | None = None
) -> Corpus:
    """JSON Lines, a file or the .jsonl files of a folder; a document is `field` of a line."""
    files, _ = files_at(path, "*.jsonl", where)
    reading = {"name": "jsonl", "field": field}
    return Corpus(
        f"JSON Lines {path}, field {field!r}", reading, files, _JsonLinesReader(field, where, wanted or {}).read
    )


@final
@dataclass(frozen=True, slots=True)
class TextReader:
    """Reads a file as one document."""

    skip_binary: bool
    """Else a file that is no text is an error."""

    def read(self, file: SourceFile, skipped: LeftOut) -> Iterator[Document]:
        """The document, or none where the file is left out."""
        try:
            text = self._text(file, skipped)
        except DataError as error:
            skipped.pass_over(error)
        else:
            if text:
                yield Document(file.name, text, identity=file.name)

    def _text(self, file: SourceFile, skipped: LeftOut) -> str:
        data = file.path.read_bytes()
        if data.startswith(_UTF16_MARKS):
            raise DataError(
                f"{file.path}: is UTF-16, not UTF-8 (byte order mark at byte 0)",
                hint=f"convert it: iconv -f utf-16 -t utf-8 {file.path} > {file.path}.utf8",
            )
        if (offset := data.find(b"\0")) >= 0:
            if not self.skip_binary:
                raise DataError(
                    f"{file.path}: is binary, not text: a NUL byte at byte {offset}",
                    hint="training text is plain UTF-8; extract the text first",
                )
            skipped["binary"] += 1
            return ""
        start = len(_BYTE_ORDER_MARK) if data.startswith(_BYTE_ORDER_MARK) else 0
        try:
            text = data[start:].decode("utf-8")
        except UnicodeDecodeError as error:
            raise undecodable(file.path, str(file.path), start + error.start, data[start + error.start]) from error
        if not text:
            skipped["empty"] += 1
        return text


@final
@dataclass(frozen=True, slots=True)
class _JsonLinesReader:
    field: str
    where: str
    wanted: Mapping[str, str]

    def read(self, file: SourceFile, skipped: LeftOut) -> Iterator[Document]:
        with file.path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if number == 1:
                    line = line.removeprefix(_BYTE_ORDER_MARK)
                if not line.strip():
                    continue
                place = f"{file.path}:{number}"
                try:
                    row = self._row(line, file.path, place)
                    text, words = self._text(row, place)
                    fields = tuple(self._value(row, place, name, where) for where, name in self.wanted.items() if text)
                except DataError as error:
                    skipped.pass_over(error)
                    continue
                if text:
                    yield Document(f"{file.name}:{number}", text, identity=text, fields=fields, words=words)
                else:
                    skipped["empty"] += 1

    def _row(self, line: bytes, path: Path, place: str) -> dict[str, Any]:
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise undecodable(path, place, error.start, line[error.start], of="of the line") from error
        except (ValueError, RecursionError) as error:
            # JSON's own words count lines, too, from 1 in every row: `place` has the line of the file.
            why = f"{error.msg} at character {error.colno}" if isinstance(error, json.JSONDecodeError) else error
            raise DataError(
                f"{place}: is not JSON: {why}", hint="JSON Lines has one whole object on each line"
            ) from error
        if not isinstance(row, dict):
            raise DataError(f"{place}: must be a JSON object. Received: {type(row).__name__}")
        return row

    def _value(self, row: dict[str, Any], place: str, name: str, where: str) -> Any:
        if name not in row:
            raise DataError(
                f"{place}: has no field {name!r} ({where}). Its fields: {names_of(list(row))}",
                hint=did_you_mean(nearest_names(name, list(row))),
            )
        return row[name]

    def _text(self, row: dict[str, Any], place: str) -> tuple[str, tuple[str, ...] | None]:
        text, words = joined(self._value(row, place, self.field, f"{self.where}.field"), self.wanted)
        if not isinstance(text, str):
            raise DataError(f"{place}: field {self.field!r} must be a string. Received: {type(text).__name__}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"{place}: field {self.field!r} holds half of a surrogate pair at character {error.start}, "
                f"which is no text. Received: {text[error.start]!r}"
            ) from error
        return text, words


def joined(value: Any, wanted: Mapping[str, str]) -> tuple[Any, tuple[str, ...] | None]:
    """A text as it is; a list of words, in a row of which more is `wanted`, as one text and the words."""
    if wanted and isinstance(value, list) and all(isinstance(word, str) for word in value):
        return " ".join(value), tuple(value)
    return value, None


def _package_files(package: str) -> list[SourceFile]:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    name = package.replace(".", "/")
    if spec.submodule_search_locations is None:
        path = Path(spec.origin or "")
        return [SourceFile(f"{name}.py", path)] if path.suffix == ".py" and path.is_file() else []
    return [
        SourceFile(f"{name}/{file.name}", file.path)
        for location in spec.submodule_search_locations
        for file in _walk(Path(location), "*.py")
        if not {"tests", "testing"} & set(file.name.split("/"))
    ]


def files_at(path: str, pattern: str, where: str) -> tuple[tuple[SourceFile, ...], bool]:
    """The files at `path`, and whether it is a folder."""
    root = require_text(path, where)
    if root.is_file():
        return (SourceFile(root.name, root),), False
    files = tuple(_walk(root, pattern))
    if not files:
        others = list(_walk(root, "*"))
        if not others:
            raise DataError(f"{where}.path: the folder holds no files (hidden ones are not read). Received: {path!r}")
        raise DataError(
            f"{where}: none of the {len(others)} files in {path!r} matches {pattern!r}, such as {others[0].name!r}"
        )
    return files, True


def _walk(root: Path, pattern: str) -> Iterator[SourceFile]:
    """Files under `root` whose path ends as `pattern` says, sorted by name; hidden ones left out."""

    def stop(error: OSError) -> None:
        raise _unreadable(Path(error.filename), error) from error

    anywhere = pattern.removeprefix("**/")  # which stands for no folder, too
    names: list[str] = []
    for folder, folders, files in os.walk(root, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [Path(folder, name).relative_to(root).as_posix() for name in files if not name.startswith(".")]
    for name in sorted(names):
        if any(PurePosixPath(name).match(each) for each in (pattern, anywhere)) and (root / name).is_file():
            yield SourceFile(name, root / name)


def undecodable(path: Path, place: str, offset: int, byte: int, of: str = "") -> DataError:
    """The error for a byte at `place` that is no UTF-8."""
    return DataError(
        f"{place}: is not UTF-8: byte 0x{byte:02x} at byte {offset}{of and ' ' + of}",
        hint=f"convert it from what it is, such as Latin-1: iconv -f latin1 -t utf-8 {path} > {path}.utf8; "
        "or leave out what cannot be read: data.on_bad=skip",
    )


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read: {error.strerror or error}")


def names_of(names: list[str]) -> str:
    """The first of `names`, quoted, and how many more there are."""
    shown = ", ".join(repr(name) for name in names[:12])
    return f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown or "none"


def require_column(name: str, columns: list[str], where: str, path: Path) -> None:
    """Raises: DataError when `columns`, of the file at `path`, lack `name`, which the setting `where` names."""
    if name not in columns:
        raise DataError(
            f"{path}: has no column {name!r} ({where}). Its columns: {names_of(columns)}",
            hint=did_you_mean(nearest_names(name, columns)),
        )
