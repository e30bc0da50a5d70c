"""The lines of a foreign file, in bounded memory: its encoding, its line ends, and lines that are too long."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from trimtab.errors import DataError, UsageError
from trimtab.runs.importers.meter import Meter, Progress, meter_of
from trimtab.runs.printable import printable

CHUNK_BYTES: Final = 1 << 20
LONGEST_LINE: Final = 4 << 20
_HEAD_BYTES: Final = 1 << 16
_MARKS: Final = (  # those of UTF-32 begin as those of UTF-16 do
    ("utf-8-sig", codecs.BOM_UTF8),
    ("utf-32", codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    ("utf-16", codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
)
_BINARY: Final[dict[bytes, str]] = {
    b"\x1f\x8b": "gzip: unpack it first",
    b"\xfd7zXZ": "xz: unpack it first",
    b"\x28\xb5\x2f\xfd": "zstd: unpack it first",
    b"BZh": "bzip2: unpack it first",
    b"PK\x03\x04": "a zip file: a checkpoint or a workbook; export the log as CSV",
    b"\x89PNG": "a picture",
    **{bytes((0x80, protocol)): "a pickle, which is never loaded" for protocol in (2, 3, 4, 5)},
}


@dataclass(slots=True)
class Lines:
    """A text file, line by line."""

    path: Path
    encoding: str
    too_long: int = 0
    """Lines that were left out because of their length."""
    ends_whole: bool = field(default=True)
    """Whether the last line had its end; known when all were read."""

    meter: Meter | None = None

    def blocks(self) -> Iterator[list[str]]:
        """Lists of whole lines, without their ends."""
        decoder = codecs.getincrementaldecoder(self.encoding)("replace")
        rest, skipping = "", False
        for chunk in _chunks(self.path):
            if self.meter is not None:
                self.meter.add(len(chunk))
            text = decoder.decode(chunk).replace("\r\n", "\n").replace("\r", "\n")
            if skipping:
                _, end, text = text.partition("\n")
                if not end:
                    continue
                skipping = False
            lines = (rest + text).split("\n")
            rest = lines.pop()
            if len(rest) > LONGEST_LINE:
                rest, skipping = "", True
                self.too_long += 1
            if lines:
                yield lines
        rest += decoder.decode(b"", final=True)
        self.ends_whole = not rest
        if rest:
            yield [rest]

    def head(self) -> str:
        """The first characters: at least the first line, where it is no longer than one may be."""
        first = first_bytes(self.path, _HEAD_BYTES)
        if b"\n" not in first and b"\r" not in first:
            first = first_bytes(self.path, LONGEST_LINE)
        text = codecs.getincrementaldecoder(self.encoding)("replace").decode(first)
        return text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")


def open_lines(path: Path, progress: Progress | None = None) -> Lines:
    """The file at `path` as text. Raises: UsageError when it cannot be read; DataError when it is no text."""
    first = first_bytes(path, _HEAD_BYTES)
    name = printable(str(path))
    for encoding, *marks in _MARKS:
        if first.startswith(tuple(marks)):
            return Lines(path, encoding, meter=meter_of(progress, [path]))
    if not first.strip():
        raise DataError(f"{name}: is empty", hint="give the log of a run that made some steps")
    for sign, what in _BINARY.items():
        if first.startswith(sign):
            raise DataError(f"{name}: is no log in text but {what}")
    control = sum(first.count(byte) for byte in (*range(8), *range(14, 27), *range(28, 32)))
    if control > 0.01 * len(first):
        raise DataError(
            f"{name}: is no text, and none of the formats that can be read",
            hint="docs/how-to/other-trainers.md lists them; export the log as CSV or JSON Lines",
        )
    return Lines(path, "utf-8", meter=meter_of(progress, [path]))


def first_bytes(path: Path, num_bytes: int) -> bytes:
    """The beginning of a file. Raises: UsageError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(num_bytes)
    except OSError as error:
        raise UsageError(f"{printable(str(path))}: cannot be read ({error.strerror})") from error


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            held = b""
            while chunk := file.read(CHUNK_BYTES):
                chunk = held + chunk
                held = b"\r" if chunk.endswith(b"\r") else b""  # half of a line end
                yield chunk[: len(chunk) - len(held)]
            if held:
                yield held
    except OSError as error:
        raise UsageError(f"{printable(str(path))}: cannot be read ({error.strerror})") from error
