"""Rows of per-layer values in few bytes, without loss: neighbouring windows differ in their last bits alone.

A group of rows with the same columns is

    number of rows R  of columns C  crc32 of the names' payload  length of the stream (uint32 each)  zlib stream

and the stream holds, little-endian, the steps (int64 [R]), whether each came late (uint8 [R]), and the values: each
row's bits combined by exclusive or with those of the row before, then column by column, then byte by byte, so that
bytes which rarely change lie together. A block holds as many groups as its rows have changes of columns.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

ROWS_A_BLOCK: Final = 64
"""A damaged block loses no more rows."""
_MOST_BYTES: Final = 2**30
_GROUP: Final = struct.Struct("<IIII")


class Row(NamedTuple):
    """One window's values."""

    step: int
    late: bool
    """Whether it was written after windows behind it."""
    names_crc: int
    values: NDArray[np.float32]
    """[C]"""


def compressed(rows: Sequence[Row]) -> bytes:
    """The payload of a block."""
    payload = b""
    for (names_crc, num_columns), group in itertools.groupby(rows, lambda row: (row.names_crc, len(row.values))):
        part = list(group)
        bits_RC = np.stack([row.values for row in part]).astype("<f4").view("<u4")
        bits_RC[1:] ^= bits_RC[:-1].copy()
        planes = np.ascontiguousarray(bits_RC.T).view(np.uint8).reshape(-1, 4).T
        content = np.array([row.step for row in part], "<i8").tobytes()
        content += np.array([row.late for row in part], np.uint8).tobytes() + planes.tobytes()
        stream = zlib.compress(content, 6)
        payload += _GROUP.pack(len(part), num_columns, names_crc, len(stream)) + stream
    return payload


def decompressed(payload: bytes) -> list[Row]:
    """The rows in a payload, in the order in which they were given; those before what is none of ours."""
    rows: list[Row] = []
    offset = 0
    while offset + _GROUP.size <= len(payload):
        num_rows, num_columns, names_crc, length = _GROUP.unpack_from(payload, offset)
        offset += _GROUP.size
        expected = num_rows * (9 + 4 * num_columns)
        if expected > _MOST_BYTES:
            break
        try:
            content = zlib.decompressobj().decompress(payload[offset : offset + length], expected + 1)
        except zlib.error:
            break
        if len(content) != expected:
            break
        offset += length
        steps = np.frombuffer(content, "<i8", num_rows)
        late = np.frombuffer(content, np.uint8, num_rows, 8 * num_rows)
        planes = np.frombuffer(content, np.uint8, offset=9 * num_rows).reshape(4, -1)
        bits_CR = np.ascontiguousarray(planes.T).view("<u4").reshape(num_columns, num_rows)
        values_RC = np.bitwise_xor.accumulate(bits_CR.T, axis=0).astype("<u4").view("<f4")
        rows += [Row(int(steps[r]), bool(late[r]), names_crc, values_RC[r]) for r in range(num_rows)]
    return rows
