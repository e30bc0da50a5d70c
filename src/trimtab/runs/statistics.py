"""statistics/: per-layer values of every window, as float32 rows in files that only grow.

A folder of segments 0000.f32, 0001.f32 …; a segment is a sequence of blocks, integers little-endian:

    magic (4 bytes)  length of the payload (uint32)  crc32 of the payload (uint32)  payload

    TTSN  names    JSON {"every": int, "columns": [...]}: the columns of the rows that follow; of so many windows one
                   was written while all was calm: 1, or 10 in a segment that was thinned
    TTSV  values   step (int64), crc32 of the names' payload (uint32), one float32 a column
    TTSL  late     the same, of a window before the newest, written when it turned out to be worth it
    TTSZ  rows     many of both kinds, compressed: see `compressed.py`
    TTSM  mark     step (int64): the windows around it are worth keeping

Rows come behind their names, and each change of columns has names of its own; a mark may be the first of all. A row
of TTSV at a step takes back the earlier rows at that step and beyond: they belong to a branch that was left. The last
1,000 windows are kept as they were written; of older segments every 10th window, the late ones and those around marks,
compressed.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import zlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import StorageError
from trimtab.runs.compressed import ROWS_A_BLOCK, Row, compressed, decompressed
from trimtab.runs.files import AppendFile, sync_folder

SEGMENT_WINDOWS = 500
THIN_EVERY = 10
AROUND_MARK = 10
MOST_KEPT = 250
"""Of a segment that is thinned: marks beyond that keep nothing, where something goes wrong all the time."""
_HEAD = struct.Struct("<4sII")
_ROW = struct.Struct("<qI")
_NAMES, _VALUES, _LATE, _ROWS, _MARK = b"TTSN", b"TTSV", b"TTSL", b"TTSZ", b"TTSM"
_MAGICS = (_NAMES, _VALUES, _LATE, _ROWS, _MARK)


@final
class StatisticsWriter:
    """Appends rows; goes on after the last whole block of an earlier process.

    These values matter less than the run: once open, nothing here raises for the disk's sake.
    """

    def __init__(self, folder: Path, *, segment_windows: int = SEGMENT_WINDOWS, every: int = 1) -> None:
        """The newest two full segments are never thinned, which is 1,000 windows. `every`: of so many windows only one
        is handed over, so that there is nothing to thin.

        Raises: StorageError when the folder cannot be written.
        """
        self._folder = folder
        self._segment_windows, self._every = segment_windows, every
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
            self._windows = sum(magic in (_VALUES, _LATE) for magic, _, _ in blocks)
            os.truncate(path, blocks[-1][2] if blocks else 0)
        self._file = AppendFile(path)

    def append(self, step: int, values: Mapping[str, float], *, late: bool = False) -> None:
        """Write the row of the window that ends at `step`; `late`: others after it are written already."""
        if self._windows >= self._segment_windows and not self._file.pending:
            self._next_segment()
        if tuple(values) != self._columns:
            self._columns = tuple(values)
            payload = _names_payload(self._every, self._columns)
            self._names_crc = zlib.crc32(payload)
            self._file.append(_block(_NAMES, payload))
        row = np.fromiter(values.values(), dtype="<f4", count=len(values))
        self._file.append(_block(_LATE if late else _VALUES, _ROW.pack(step, self._names_crc) + row.tobytes()))
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
        with contextlib.suppress(Exception):  # a segment that stays as it is costs room, a run that ends all
            for path in reversed(_segments(self._folder)[:-3]):
                if not _retire(path):
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
                try:
                    part = json.loads(payload)["columns"]
                except (ValueError, KeyError, TypeError):
                    continue
                names[zlib.crc32(payload)] = np.array(
                    [columns.setdefault(name, len(columns)) for name in part], dtype=np.int64
                )
            for step, late, names_crc, values in _rows_in(magic, payload):
                if names_crc not in names or len(names[names_crc]) != len(values):
                    continue
                place = bisect_left(steps, step)
                if not late:
                    del steps[place:], rows[place:]
                elif place < len(steps) and steps[place] == step:
                    continue
                row = np.full(len(columns), np.nan, dtype=np.float32)
                row[names[names_crc]] = values
                steps.insert(place, step)
                rows.insert(place, row)
    values_WC = np.full((len(rows), len(columns)), np.nan, dtype=np.float32)
    for index, row in enumerate(rows):
        values_WC[index, : len(row)] = row
    return np.array(steps, dtype=np.int64), tuple(columns), values_WC


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
        if magic in _MAGICS and len(payload) == length and zlib.crc32(payload) == crc:
            offset += _HEAD.size + length
            yield magic, payload, offset
        else:
            found = data.find(b"TTS", offset + 1)
            offset = len(data) if found < 0 else found


def _rows_in(magic: bytes, payload: bytes) -> list[Row]:
    """The rows of a block, in the order in which they were written."""
    if magic in (_VALUES, _LATE):
        if len(payload) < _ROW.size or (len(payload) - _ROW.size) % 4:  # another kind, with a flipped bit in front
            return []
        step, names_crc = _ROW.unpack_from(payload)
        return [Row(step, magic == _LATE, names_crc, np.frombuffer(payload, dtype="<f4", offset=_ROW.size))]
    return decompressed(payload) if magic == _ROWS else []


def _retire(path: Path) -> bool:
    """Thin a segment, unless it was, and compress it; False if that was done before, or its first names are lost."""
    blocks = [(magic, payload) for magic, payload, _ in _blocks(path.read_bytes())]
    rows_at = [index for index, (magic, _) in enumerate(blocks) if magic in (_VALUES, _LATE)]
    first = next((index for index, (magic, _) in enumerate(blocks) if magic == _NAMES), len(blocks))
    if not rows_at or rows_at[0] < first:
        return False
    keep = _worth_keeping(blocks) if json.loads(blocks[first][1])["every"] == 1 else range(len(blocks))
    aside = path.with_suffix(".tmp")
    names: dict[int, int] = {}
    waiting: list[Row] = []

    with open(aside, "wb") as file:

        def write_waiting() -> None:
            for begin in range(0, len(waiting), ROWS_A_BLOCK):
                file.write(_block(_ROWS, compressed(waiting[begin : begin + ROWS_A_BLOCK])))
            waiting.clear()

        for index, (magic, payload) in enumerate(blocks):
            if magic == _NAMES:
                content = json.loads(payload)
                thinned = _names_payload(max(THIN_EVERY, content["every"]), tuple(content["columns"]))
                names[zlib.crc32(payload)] = zlib.crc32(thinned)
                write_waiting()
                file.write(_block(_NAMES, thinned))
            elif magic == _MARK:
                write_waiting()
                file.write(_block(magic, payload))
            elif index in keep:
                rows = [row for row in _rows_in(magic, payload) if row.names_crc in names]
                waiting += [row._replace(names_crc=names[row.names_crc]) for row in rows]
        write_waiting()
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    sync_folder(path.parent)
    return True


def _worth_keeping(blocks: Sequence[tuple[bytes, bytes]]) -> set[int]:
    """Of the blocks with rows every 10th, those that came late, and those around marks."""
    windows = [index for index, (magic, _) in enumerate(blocks) if magic == _VALUES]
    keep = set(windows[::THIN_EVERY]) | {index for index, (magic, _) in enumerate(blocks) if magic == _LATE}
    for index, (magic, _) in enumerate(blocks):
        if magic == _MARK and len(keep) < MOST_KEPT:
            position = int(np.searchsorted(windows, index))
            keep.update(windows[max(0, position - AROUND_MARK) : position + AROUND_MARK])
    return keep
