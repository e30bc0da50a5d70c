"""The wire format of protocol buffers, as much of it as a reader of logs needs, without the package.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from trimtab.errors import DataError

VARINT: Final = 0
EIGHT_BYTES: Final = 1
BYTES: Final = 2
FOUR_BYTES: Final = 5
_LONGEST_VARINT: Final = 10


class MalformedError(DataError):
    """The bytes are no message."""


def fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Number, wire type and value of each field: an integer for a varint, else the bytes. Raises: MalformedError."""
    at, end = 0, len(data)
    while at < end:
        key = data[at]
        at += 1
        if key >= 0x80:
            key, at = _varint(data, at - 1)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _varint(data, at)
            yield number, kind, value
            continue
        if kind == BYTES:
            size, at = _varint(data, at)
        elif kind == EIGHT_BYTES:
            size = 8
        elif kind == FOUR_BYTES:
            size = 4
        else:
            raise MalformedError(f"wire type {kind}")
        if at + size > end:
            raise MalformedError("a field reaches beyond the message")
        yield number, kind, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _LONGEST_VARINT, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise MalformedError("an integer without an end")


def signed(value: int | bytes) -> int:
    """A varint as a signed integer of 64 bits."""
    if isinstance(value, bytes):
        raise MalformedError("bytes where an integer belongs")
    return value - (1 << 64) if value >= 1 << 63 else value


def inner(value: int | bytes) -> bytes:
    """The bytes of a message or text."""
    if isinstance(value, int):
        raise MalformedError("an integer where bytes belong")
    return value


def text(value: int | bytes) -> str:
    """A text; bytes that are none are replaced."""
    return inner(value).decode("utf-8", "replace")


def float32(value: int | bytes) -> float:
    """A number of four bytes."""
    return float(struct.unpack("<f", inner(value)[:4].ljust(4, b"\0"))[0])


def float64(value: int | bytes) -> float:
    """A number of eight bytes."""
    return float(struct.unpack("<d", inner(value)[:8].ljust(8, b"\0"))[0])
