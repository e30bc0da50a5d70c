"""statistics/: per-layer values of every window, as float32 rows in files that only grow.

A folder of segments 0000.f32, 0001.f32 …; a segment is a sequence of blocks, integers little-endian:

    magic (4 bytes)  length of the payload (uint32)  crc32 of the payload (uint32)  payload

    TTSN  names    JSON {"every": int, "columns": [...]}: the columns of the rows that follow; `every` is 1,
                   or 10 in a segment that was thinned
    TTSV  values   step (int64), crc32 of the names' payload (uint32), one float32 a column
    TTSM  mark     step (int64): the windows around it are worth keeping

Each segment begins with names, and so does each change of columns. A row at a step takes back the earlier
rows at that step and beyond: they belong to a branch that was left. The last 1,000 windows are kept in full;
of older segments every 10th window and those around marks.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import StorageError
from trimtab.runs.files import AppendFile, sync_folder

SEGMENT_WINDOWS = 500
THIN_EVERY = 10
AROUND_MARK = 10
_HEAD = struct.Struct("<4sII")
_ROW = struct.Struct("<qI")
_NAMES, _VALUES, _MARK = b"TTSN", b"TTSV", b"TTSM"


@final
class StatisticsWriter:
    """Appends rows; goes on after the last whole block of an earlier process.

    These values matter less than the run: once open, nothing here raises for the disk's sake.
    """

    def __init__(self, folder: Path, *, segment_windows: int = SEGMENT_WINDOWS) -> None:
        """The newest two full segments are never thinned, which is 1,000 windows.

        Raises: StorageError when the folder cannot be written.
        """
        self._folder = folder
        self._segment_windows = segment_windows
        self._columns: tuple[str, ...] = ()
        self._names_crc = 0
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise StorageError(f"{folder}: cannot be created ({error.strerror})") from error
        segments = _segments(folder)
        self._number = int(segments[-1].stem) if segments else 0
        path = self._path(self._number)
        self._windows = 0
        if path.exists():
            blocks = list(_blocks(path.read_bytes()))
            self._windows = sum(magic == _VALUES for magic, _, _ in blocks)
            os.truncate(path, blocks[-1][2] if blocks else 0)
        self._file = AppendFile(path)

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Write the row of the window that ends at `step`."""
        if self._windows >= self._segment_windows and not self._file.pending:
            self._next_segment()
        if tuple(values) != self._columns:
            self._columns = tuple(values)
            payload = _names_payload(1, self._columns)
            self._names_crc = zlib.crc32(payload)
            self._file.append(_block(_NAMES, payload))
        row = np.fromiter(values.values(), dtype="<f4", count=len(values))
        self._file.append(_block(_VALUES, _ROW.pack(step, self._names_crc) + row.tobytes()))
        self._windows += 1

    def mark(self, step: int) -> None:
        """Keep the windows around this moment when the segment is thinned."""
        self._file.append(_block(_MARK, struct.pack("<q", step)))

    def close(self) -> None:
        """Sync and close; closing again does nothing."""
        with contextlib.suppress(StorageError):
            self._file.close()

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:04d}.f32"

    def _next_segment(self) -> None:
        try:
            following = AppendFile(self._path(self._number + 1))
        except StorageError:
            return
        self.close()
        self._file = following
        self._number += 1
        self._windows, self._columns = 0, ()
        with contextlib.suppress(OSError):
            for path in reversed(_segments(self._folder)[:-3]):
                if not _thin(path):
                    break


def read_statistics(folder: Path) -> tuple[NDArray[np.int64], tuple[str, ...], NDArray[np.float32]]:
    """Steps [W], column names [C] and values [W, C] (NaN: no such column in that window)."""
    steps: list[int] = []
    rows: list[NDArray[np.float32]] = []
    columns: dict[str, int] = {}
    for path in _segments(folder):
        names: dict[int, NDArray[np.int64]] = {}
        for magic, payload, _ in _blocks(path.read_bytes()):
            if magic == _NAMES:
                part = json.loads(payload)["columns"]
                names[zlib.crc32(payload)] = np.array(
                    [columns.setdefault(name, len(columns)) for name in part], dtype=np.int64
                )
            elif magic == _VALUES:
                step, names_crc = _ROW.unpack_from(payload)
                row = np.frombuffer(payload, dtype="<f4", offset=_ROW.size)
                if names_crc not in names or len(names[names_crc]) != len(row):
                    continue
                while steps and steps[-1] >= step:
                    steps.pop()
                    rows.pop()
                steps.append(step)
                rows.append(np.full(len(columns), np.nan, dtype=np.float32))
                rows[-1][names[names_crc]] = row
    values = np.full((len(rows), len(columns)), np.nan, dtype=np.float32)
    for index, row in enumerate(rows):
        values[index, : len(row)] = row
    return np.array(steps, dtype=np.int64), tuple(columns), values


def _segments(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    paths = [path for path in folder.glob("*.f32") if path.stem.isdigit()]
    return sorted(paths, key=lambda path: int(path.stem))


def _names_payload(every: int, columns: tuple[str, ...]) -> bytes:
    return json.dumps({"every": every, "columns": columns}, separators=(",", ":")).encode()


def _block(magic: bytes, payload: bytes) -> bytes:
    return _HEAD.pack(magic, len(payload), zlib.crc32(payload)) + payload


def _blocks(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Magic, payload and end offset of each whole block; damaged bytes are skipped."""
    offset = 0
    while offset + _HEAD.size <= len(data):
        magic, length, crc = _HEAD.unpack_from(data, offset)
        payload = data[offset + _HEAD.size : offset + _HEAD.size + length]
        if magic in (_NAMES, _VALUES, _MARK) and len(payload) == length and zlib.crc32(payload) == crc:
            offset += _HEAD.size + length
            yield magic, payload, offset
        else:
            found = data.find(b"TTS", offset + 1)
            offset = len(data) if found < 0 else found


def _thin(path: Path) -> bool:
    """Keep every 10th window of a segment, and those around its marks; False if that was done before."""
    blocks = [(magic, payload) for magic, payload, _ in _blocks(path.read_bytes())]
    if not blocks or json.loads(blocks[0][1]).get("every") != 1:
        return False
    windows = [index for index, (magic, _) in enumerate(blocks) if magic == _VALUES]
    keep = set(windows[::THIN_EVERY])
    for index, (magic, _) in enumerate(blocks):
        if magic == _MARK:
            position = int(np.searchsorted(windows, index))
            keep.update(windows[max(0, position - AROUND_MARK) : position + AROUND_MARK])
    aside = path.with_suffix(".tmp")
    names: dict[int, int] = {}
    with open(aside, "wb") as file:
        for index, (magic, payload) in enumerate(blocks):
            if magic == _NAMES:
                thinned = _names_payload(THIN_EVERY, tuple(json.loads(payload)["columns"]))
                names[zlib.crc32(payload)] = zlib.crc32(thinned)
                payload = thinned
            elif magic == _VALUES:
                step, names_crc = _ROW.unpack_from(payload)
                if index not in keep or names_crc not in names:
                    continue
                payload = _ROW.pack(step, names[names_crc]) + payload[_ROW.size :]
            file.write(_block(magic, payload))
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    sync_folder(path.parent)
    return True
