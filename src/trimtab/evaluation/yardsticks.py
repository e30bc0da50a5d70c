"""What simple methods reach on the same text, in bits per byte: the marks that a model should pass."""

from __future__ import annotations

import lzma
import zlib
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.integer[Any]]

MOST_VALIDATION_BYTES: Final = 4_000_000
"""Of a longer validation text the beginning is judged."""
MOST_TRAINING_TOKENS: Final = 32_000_000
"""Of a longer training stream the beginning is counted."""


def yardsticks(
    training_tokens: Tokens, validation_tokens: Tokens, token_bytes: NDArray[np.int64], validation_text: bytes
) -> dict[str, float | int | bool]:
    """Bits per byte of `bigram`, `unigram`, `zlib` and `lzma`, and how much they were judged on.

    The counted ones learn from `training_tokens` and are judged as a model is: on every token of
    `validation_tokens` but the first, ends of documents included, over the UTF-8 bytes of those tokens. `zlib`
    (level 9) and `lzma` (preset 9) compress `validation_text`, the text of those tokens, unprepared.

    `capped` is true where MOST_VALIDATION_BYTES or MOST_TRAINING_TOKENS cut something off.
    """
    vocabulary_size = len(token_bytes)
    counted = training_tokens[:MOST_TRAINING_TOKENS]
    ends = np.cumsum(token_bytes[validation_tokens[1:]])
    judged = int(np.searchsorted(ends, MOST_VALIDATION_BYTES, side="right"))
    stream, num_bytes = validation_tokens[: judged + 1], int(ends[judged - 1])
    text = validation_text[:num_bytes]
    model = BigramModel(counted, vocabulary_size)
    # A dictionary larger than the text gains nothing, and that of preset 9 costs 700 MB of memory.
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": max(1 << 16, len(text))}]
    return {
        "bigram": float(-model.log2_probability(stream[:-1], stream[1:]).sum() / num_bytes),
        "unigram": float(-np.log2(smoothed_unigram(counted, vocabulary_size))[stream[1:]].sum() / num_bytes),
        "zlib": 8 * len(zlib.compress(text, 9)) / len(text),
        "lzma": 8 * len(lzma.compress(text, filters=filters)) / len(text),
        "judged_tokens": judged,
        "judged_bytes": num_bytes,
        "training_tokens": len(counted),
        "capped": judged < len(ends) or len(counted) < len(training_tokens),
    }


def smoothed_unigram(tokens: Tokens, vocabulary_size: int) -> NDArray[np.float64]:
    """The probability of each token, [vocabulary_size]: counts, discounted and mixed with the uniform.

    P(w) = max(c(w) - D, 0) / N + D·K / N · 1/V, where K tokens of the V occur, N times in all.
    """
    return _discounted(np.bincount(tokens, minlength=vocabulary_size))


@final
class BigramModel:
    """P(w | v) from counts of pairs, with interpolated Kneser-Ney smoothing.

    P(w | v) = max(c(v w) - D, 0) / c(v ·) + D · N1(v ·) / c(v ·) · Pc(w), and Pc(w) alone after a v never
    seen, where c counts pairs, N1(v ·) is the number of different tokens seen after v, and the continuation
    probability Pc is `smoothed_unigram`'s formula over N1(· w), the number of different tokens seen before w.
    D = n1 / (n1 + 2·n2), from the numbers of counts that are 1 and 2.

    Source: Kneser & Ney 1995, "Improved backing-off for m-gram language modeling"; interpolated as in Chen &
    Goodman 1999, "An empirical study of smoothing techniques for language modeling", section 2.7; mixing Pc with
    the uniform distribution is ours, so that no token has probability 0.
    """

    def __init__(self, tokens: Tokens, vocabulary_size: int) -> None:
        """Count the pairs of neighbours in `tokens`."""
        self._vocabulary_size = vocabulary_size
        keys, self._counts = np.unique(self._key(tokens[:-1], tokens[1:]), return_counts=True)
        self._keys = keys
        previous, following = np.divmod(keys, vocabulary_size)
        self._discount = _discount(self._counts)
        self._after = np.bincount(previous, weights=self._counts, minlength=vocabulary_size)
        self._kinds_after = np.bincount(previous, minlength=vocabulary_size)
        self._continuation = _discounted(np.bincount(following, minlength=vocabulary_size))

    def log2_probability(self, previous: Tokens, following: Tokens) -> NDArray[np.float64]:
        """log2 P(following | previous), element by element."""
        keys = self._key(previous, following)
        at = np.minimum(np.searchsorted(self._keys, keys), max(0, len(self._keys) - 1))
        count = np.where(self._keys[at] == keys, self._counts[at], 0) if len(self._keys) else np.zeros(len(keys))
        after, kinds = self._after[previous], self._kinds_after[previous]
        seen = after > 0
        total = np.where(seen, after, 1.0)
        own = np.maximum(count - self._discount, 0.0) / total
        backed_off = np.where(seen, self._discount * kinds / total, 1.0)
        probability: NDArray[np.float64] = np.log2(own + backed_off * self._continuation[following])
        return probability

    def _key(self, previous: Tokens, following: Tokens) -> NDArray[np.int64]:
        return previous.astype(np.int64) * self._vocabulary_size + following


def _discount(counts: NDArray[np.int64]) -> float:
    ones, twos = int((counts == 1).sum()), int((counts == 2).sum())
    # Without any of either there is nothing to estimate it from; it must be above 0 for what was never seen.
    return ones / (ones + 2 * twos) if ones and twos else 0.5


def _discounted(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    total, size = int(counts.sum()), len(counts)
    if total == 0:
        return np.full(size, 1.0 / size)
    discount = _discount(counts)
    left_over = discount * np.count_nonzero(counts) / total
    probability: NDArray[np.float64] = np.maximum(counts - discount, 0.0) / total + left_over / size
    return probability
