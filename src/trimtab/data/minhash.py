"""Which sets are nearly equal, without comparing each with each: MinHash, and bands of it.

Source: Broder 1997, doi 10.1109/SEQUEN.1997.666900; bands: Leskovec et al., Mining of Massive Datasets, section 3.4.
Deviation: permutations are a·x + b modulo 2**32 of values that are mixed before.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

HASHES: Final = 128
"""Numbers of a signature: the similarity of two sets is told to 0.04 (one standard error, at 0.8)."""
_SEED: Final = 0x7472696D746162
_AT_ONCE: Final = 1 << 11
_PAIRS_AT_ONCE: Final = 1 << 8
_NEIGHBOURS: Final = 1 << 7
"""Rows in 64 KiB, which Linux maps where one of them is asked for."""
_MOST_MAPPED: Final = 1 << 8
"""So many of these, 16 MiB, before they are given back."""
_ROWS_AT_ONCE: Final = 1 << 13
"""4 MiB of a file of signatures."""
_FOUND: Final = 0.99
"""At least so probably two sets, as similar as asked for, meet in a band."""


def signature(values: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """The least image of `values` under each of `HASHES` permutations, [HASHES]; all ones for an empty set.

    Of two sets it is the same in as many places as they have in common, as a part of what they have together.
    """
    least = np.full(HASHES, np.uint32(0xFFFFFFFF))
    small = (values >> np.uint64(32)).astype(np.uint32)
    for begin in range(0, len(small), _AT_ONCE):
        images = small[begin : begin + _AT_ONCE, None] * _FACTORS[None]
        images += _OFFSETS[None]
        np.minimum(least, images.min(axis=0), out=least)
    return least


def similar(
    signatures: NDArray[np.uint32], threshold: float, rows: NDArray[np.int64] | None = None
) -> Iterator[tuple[int, int]]:
    """Pairs (earlier, later) of `signatures`, [N, HASHES], that agree in at least `threshold` of their places.

    With `rows` these are numbered, in that order, and no others looked at. `signatures` may be mapped from a file: a
    few of their columns, and some megabytes of the file, are in memory at a time.

    Each set is compared with the first one in a band that it shares, and with the one before it there, so that of a
    group of similar sets each but the first is named, while not every pair is. Some may be named again.
    """
    rows = np.arange(len(signatures)) if rows is None else rows
    in_file, mapped = np.argsort(rows, kind="stable"), 0
    width = _width(threshold)
    for band in range(HASHES // width):
        part = _columns(signatures, rows, in_file, band * width, (band + 1) * width)
        keys = np.zeros(len(part), dtype=np.uint64)
        for column in range(width):
            keys = (keys ^ part[:, column]) * np.uint64(0x100000001B3)
            keys ^= keys >> np.uint64(29)
        order = np.argsort(keys, kind="stable")
        ranked = keys[order]
        later = np.flatnonzero(ranked[1:] == ranked[:-1]) + 1
        if not len(later):
            continue
        begins = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
        firsts = begins[np.searchsorted(begins, later, side="right") - 1]
        for others in (firsts, later - 1):
            for begin in range(0, len(later), _PAIRS_AT_ONCE):
                end = begin + _PAIRS_AT_ONCE
                left, right = order[others[begin:end]], order[later[begin:end]]
                alike = (signatures[rows[left]] == signatures[rows[right]]).mean(axis=1) >= threshold
                mapped += len(np.unique(rows[np.concatenate([left, right])] // _NEIGHBOURS))
                if mapped >= _MOST_MAPPED:
                    release(signatures)
                    mapped = 0
                yield from zip(left[alike].tolist(), right[alike].tolist(), strict=True)


def release(mapped: NDArray[Any]) -> None:
    """Give back the memory of what was read of a file that is mapped; where it is asked for again, it is read again.

    Otherwise all of the file that was ever touched counts as memory of the process, and at a limit may be its end.
    """
    base: Any = mapped
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def _columns(
    signatures: NDArray[np.uint32], rows: NDArray[np.int64], in_file: NDArray[np.int64], begin: int, end: int
) -> NDArray[np.uint32]:
    """Columns of `rows`, read in the order `in_file`, so that each part of a file is in memory once."""
    part = np.empty((len(rows), end - begin), dtype=np.uint32)
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        some = in_file[first : first + _ROWS_AT_ONCE]
        part[some] = signatures[rows[some], begin:end]
        release(signatures)
    return part


def _width(threshold: float) -> int:
    """Numbers in a band: as many as still let similar sets meet."""
    fitting = [width for width in range(1, 17) if 1 - (1 - threshold**width) ** (HASHES // width) >= _FOUND]
    return max(fitting, default=1)


_WORDS: Final = np.random.Philox(key=np.array([_SEED, 0], dtype=np.uint64)).random_raw(2 * HASHES)
_FACTORS: Final = (_WORDS[:HASHES] >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
_OFFSETS: Final = (_WORDS[HASHES:] >> np.uint64(32)).astype(np.uint32)
