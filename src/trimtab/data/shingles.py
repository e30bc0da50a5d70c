"""A text as the set of its word sequences, in numbers: what two texts have in common without being equal."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

WORDS: Final = 5
"""In a shingle."""

_SPACE: Final = 32
_BYTES_AT_ONCE: Final = 1 << 20
_PRIME: Final = 0x100000001B3
_TABLE: Final = bytes(byte if byte >= 128 or chr(byte).isalnum() else _SPACE for byte in range(256))


def shingles(text: str, words: int = WORDS) -> NDArray[np.uint64]:
    """64-bit hashes of every `words` words that follow each other in `text`: distinct, rising, [N].

    A word is a run of letters and digits, whatever their case; Chinese, Japanese and Korean letters are words each. A
    text of fewer words is one shingle, and one without any is none. The same everywhere and for ever.
    """
    found = _words(text)
    if not len(found):
        return found
    size = min(words, len(found))
    joined = np.zeros(len(found) - size + 1, dtype=np.uint64)
    for offset in range(size):
        joined = joined * np.uint64(_PRIME) + found[offset : len(found) - size + 1 + offset]
    return np.unique(_mixed(joined))


def jaccard(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> float:
    """What two sets have in common, as a part of what they have together; 1 for two empty ones."""
    common = len(np.intersect1d(first, second, assume_unique=True))
    together = len(first) + len(second) - common
    return common / together if together else 1.0


def _words(text: str) -> NDArray[np.uint64]:
    """A hash of each word, in order."""
    data = text.lower().encode("utf-8", "surrogatepass").translate(_TABLE)
    parts = [np.empty(0, dtype=np.uint64)]
    begin = 0
    while begin < len(data):
        end = min(len(data), begin + _BYTES_AT_ONCE)
        if end < len(data) and (space := data.rfind(b" ", begin, end)) > begin:
            end = space
        parts.append(_words_of(np.frombuffer(data, np.uint8, end - begin, begin)))
        begin = end
    return np.concatenate(parts)


def _words_of(data: NDArray[np.uint8]) -> NDArray[np.uint64]:
    inside = np.concatenate([[False], data != _SPACE, [False]])
    # The first byte of letters that no spaces divide.
    alone = np.concatenate([(data >= 0xE3) & (data <= 0xED), [False]])
    starts = np.flatnonzero((inside[1:] & ~inside[:-1]) | alone)
    if not len(starts):
        return np.empty(0, dtype=np.uint64)
    stops = np.flatnonzero(inside[:-1] & ~inside[1:])
    ends = np.minimum(stops[np.searchsorted(stops, starts, side="right")], np.append(starts[1:], len(data)))
    powers = _powers(len(data))
    sums = np.concatenate([[np.uint64(0)], np.cumsum((data.astype(np.uint64) + np.uint64(1)) * powers)])
    # A sum begun at `start` has that power in every term; odd numbers have inverses modulo 2**64.
    return _mixed((sums[ends] - sums[starts]) * _powers(len(data), inverse=True)[starts])


_KEPT: dict[bool, NDArray[np.uint64]] = {}


def _powers(count: int, *, inverse: bool = False) -> NDArray[np.uint64]:
    kept = _KEPT.get(inverse)
    if kept is None or len(kept) < count:
        base = pow(_PRIME, -1, 1 << 64) if inverse else _PRIME
        size = max(1 << 12, 1 << (count - 1).bit_length())
        factors = np.full(size, base, dtype=np.uint64)
        factors[0] = 1
        kept = _KEPT[inverse] = np.cumprod(factors, dtype=np.uint64)
    return kept[:count]


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A permutation of all 64-bit numbers. Source: Steele et al. 2014, doi 10.1145/2714064.2660195 (SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
