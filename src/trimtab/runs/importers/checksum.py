"""CRC-32C, the checksum of TensorBoard's records, of many records of one length at once.

Source: RFC 3720, appendix B.4; masked as in TFRecord (https://www.tensorflow.org/tutorials/load_data/tfrecord).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL: Final = 0x82F63B78


def _table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table.astype(np.uint32)


_TABLE: Final = _table()


def masked_crc32c(parts: Sequence[bytes]) -> NDArray[np.uint32]:
    """The masked checksums [N] of N byte strings."""
    sums = np.zeros(len(parts), np.uint32)
    by_length: dict[int, list[int]] = {}
    for index, part in enumerate(parts):
        by_length.setdefault(len(part), []).append(index)
    for length, where in by_length.items():
        bytes_NL = np.frombuffer(b"".join(parts[index] for index in where), np.uint8).reshape(len(where), length)
        crc = np.full(len(where), 0xFFFF_FFFF, np.uint32)
        for byte in np.ascontiguousarray(bytes_NL.T):
            crc = _TABLE[(crc ^ byte) & np.uint32(0xFF)] ^ (crc >> np.uint32(8))
        sums[where] = crc ^ np.uint32(0xFFFF_FFFF)
    rotated = (sums >> np.uint32(15)) | (sums << np.uint32(17))
    return (rotated.astype(np.uint64) + 0xA282EAD8).astype(np.uint32)
