"""The file that Weights & Biases writes offline (`run-<id>.wandb`), read without the package.

LevelDB's log: blocks of 32 KiB, records in parts with a checksum each, behind a header of seven bytes. A record is a
message of protocol buffers; the numbers are its histories, as JSON.

Source: wandb/sdk/internal/datastore.py, wandb/proto/wandb_internal.proto;
https://github.com/google/leveldb/blob/main/doc/log_format.md
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from trimtab.errors import UsageError
from trimtab.runs import format
from trimtab.runs.importers.cells import Block, block_of_records
from trimtab.runs.importers.json_lines import parse
from trimtab.runs.importers.meter import Progress, meter_of
from trimtab.runs.importers.protobuf import MalformedError, fields, inner, signed, text
from trimtab.runs.importers.table import MAX_COLUMNS, Source
from trimtab.runs.printable import printable

MARK: Final = b":W&B"
BLOCK_BYTES: Final = 1 << 15
_HEADER: Final = 7
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_LARGEST_RECORD: Final = 1 << 26
ROWS_A_BLOCK: Final = 5_000


def open_wandb(path: Path, progress: Progress | None = None) -> Source:
    """A file of an offline run as a source of blocks."""
    source = Source("wandb", iter(()), meter=meter_of(progress, [path]))
    source.blocks = _blocks(path, source)
    return source


def _blocks(path: Path, source: Source) -> Iterator[Block]:
    rows: list[Mapping[str, Any]] = []
    num_values = unread = 0
    finished = False
    for record in _records(path, source):
        try:
            for number, _, value in fields(record):
                if number == 2:
                    row = _history(inner(value))
                    rows.append(row)
                    num_values += len(row)
                elif number == 18:
                    codes = [signed(code) for at, _, code in fields(inner(value)) if at == 1]
                    finished = not any(codes)
        except MalformedError:
            unread += 1
        if len(rows) >= ROWS_A_BLOCK or num_values >= 200_000:
            yield block_of_records(rows, MAX_COLUMNS)
            rows, num_values = [], 0
    source.finished = finished
    if unread:
        source.notes.append(f"{format.counted(unread, 'record')} could not be understood: left out")
    if rows:
        yield block_of_records(rows, MAX_COLUMNS)


def _history(data: bytes) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for number, _, value in fields(data):
        if number == 1:
            parts: list[str] = []
            key, content = "", b""
            for at, _, cell in fields(inner(value)):
                if at == 1:
                    key = text(cell)
                elif at == 2:
                    parts.append(text(cell))
                elif at == 16:
                    content = inner(cell)
            name = "/".join(parts) or key
            if name and not name.endswith("/_type") and len(content) < 1 << 16:
                found = parse(content.decode("utf-8", "replace"))
                if not (isinstance(found, dict) and "_type" in found):  # pictures, tables, histograms
                    row[name] = found
        elif number == 2:
            for at, _, step in fields(inner(value)):
                if at == 1:
                    row.setdefault("_step", signed(step))
    return row


def _records(path: Path, source: Source) -> Iterator[bytes]:
    """The records, each with the checksum of all its parts; what is damaged is left out and said."""
    parts: list[bytes] = []
    damaged, size, torn = 0, 0, False
    try:
        with open(path, "rb", buffering=1 << 20) as file:
            block = file.read(BLOCK_BYTES)
            at = _HEADER  # the file's own header, in the first block
            while block:
                if source.meter is not None:
                    source.meter.add(len(block))
                full = len(block) == BLOCK_BYTES
                while at + _HEADER <= len(block):
                    told, length, kind = struct.unpack_from("<IHB", block, at)
                    if not (told or length or kind):
                        break  # padding
                    data = block[at + _HEADER : at + _HEADER + length]
                    if len(data) < length:
                        torn = not full
                        damaged += full
                        parts, size = [], 0
                        break
                    at += _HEADER + length
                    if zlib.crc32(data, zlib.crc32(bytes((kind,)))) != told:
                        damaged += 1
                        parts, size = [], 0
                        continue
                    if kind in (_WHOLE, _FIRST):
                        damaged += bool(parts)
                        parts, size = [], 0
                    elif not parts and kind in (_MIDDLE, _LAST):
                        continue  # its beginning is lost, and was counted
                    parts.append(data)
                    size += len(data)
                    if size > _LARGEST_RECORD:
                        damaged += 1
                        parts, size = [], 0
                    elif kind in (_WHOLE, _LAST):
                        yield b"".join(parts)
                        parts, size = [], 0
                block, at = file.read(BLOCK_BYTES), 0
    except OSError as error:
        raise UsageError(f"{printable(str(path))}: cannot be read ({error.strerror})") from error
    if torn or parts:
        source.notes.append("the last record is torn: it was left out")
    if damaged:
        source.notes.append(f"{format.counted(damaged, 'record')} with a wrong checksum: left out")
