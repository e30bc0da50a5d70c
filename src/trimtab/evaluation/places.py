"""Whether the token at one place of a text tells its class or number: rows of numbers, pixels and forms have places.

Shape suffixes: N texts · K classes · P places · V different tokens at a place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.integer[Any]]

MOST_PLACES: Final = 128
"""From the beginning, and as many from the end."""
FEWEST_OF_CLASS: Final = 10
"""Texts: of fewer some token at some place stands for the class by chance."""
FEWEST_TEXTS: Final = 40
MOSTLY: Final = 0.8
QUANTILES: Final = (0.5, 0.9)
"""Of distances: the usual one, and one of what a column tells nothing of; the ends may be cut off."""


def tells_class(rows: Callable[[int], Tokens], taken: NDArray[np.int64], classes_N: NDArray[np.int64]) -> float:
    """How well a token at its place stands for a class: the part of the class's texts that have it there less that of
    all others, where that is best; the lowest of all classes but the hardest, at most 1.

    Source: own; clues of single words after Gururangan et al. 2018, arXiv 1803.02324. The difference is Youden's J.
    """
    texts_K = np.bincount(classes_N)
    others_K = len(classes_N) - texts_K
    best_K = np.zeros(len(texts_K))
    for inverse_N, num_tokens, begin in _places([rows(index) for index in taken.tolist()]):
        counts_VK = np.bincount(inverse_N * len(texts_K) + classes_N, minlength=num_tokens * len(texts_K))
        counts_VK = counts_VK.reshape(num_tokens, len(texts_K))
        rest_VK = counts_VK.sum(1, keepdims=True) - counts_VK
        clue_VK = counts_VK / np.maximum(texts_K, 1) - rest_VK / np.maximum(others_K, 1)
        clue_VK[:begin] = 0.0  # how long a text is stands at no place
        best_K = np.maximum(best_K, clue_VK.max(0))
    best_K = np.where(texts_K >= FEWEST_OF_CLASS, best_K, 0.0)[texts_K > 0]
    return float(np.sort(best_K)[1]) if len(best_K) > 1 else 0.0


def tells_number(
    rows: Callable[[int], Tokens], taken: NDArray[np.int64], targets_N: NDArray[np.float64]
) -> float | None:
    """How much of a number's spread the token at the best place explains, at most 1: one less the square of the
    distance from what the token stands for over that from the median, as R² but of the usual distance or of a large
    one, whichever tells less, since a column may be cut off at its ends. What a token stands for is the mean of every
    other text that has it there, tried on the rest, where most of these have tokens that were seen. None of too few
    texts, or where most have one number."""
    counted, tried = np.arange(len(taken)) % 2 == 0, np.arange(len(taken)) % 2 == 1
    if len(taken) < FEWEST_TEXTS or not np.isfinite(targets_N).all():
        return None
    spread_Q = np.quantile(np.abs(targets_N[tried] - np.median(targets_N[tried])), QUANTILES)
    if spread_Q[0] == 0.0:
        return None
    best = 0.0
    for inverse_N, num_tokens, _ in _places([rows(index) for index in taken.tolist()]):
        seen_V = np.bincount(inverse_N[counted], minlength=num_tokens)
        sums_V = np.bincount(inverse_N[counted], targets_N[counted], minlength=num_tokens)
        known = tried & (seen_V[inverse_N] > 0)
        if known.sum() >= MOSTLY * tried.sum():
            missed_N = targets_N[known] - (sums_V / np.maximum(seen_V, 1))[inverse_N[known]]
            best = max(best, 1.0 - float((np.quantile(np.abs(missed_N), QUANTILES) / spread_Q).max()) ** 2)
    return best


def _places(texts: list[Tokens]) -> Iterator[tuple[NDArray[np.int64], int, int]]:
    """At each place from the beginning and from the end: which of its different tokens a text has there, [N], how many
    these are, and how many of them are none, 1 where some text is shorter. Nothing where texts differ at one place
    alone, which then is all that there is to read."""
    size = min(MOST_PLACES, max(map(len, texts)))
    for direction in (1, -1):
        tokens_NP = np.full((len(texts), size), -1)
        for row, text in enumerate(texts):
            tokens_NP[row, : min(size, len(text))] = text[::direction][:size]
        if (tokens_NP != tokens_NP[:1]).any(axis=0).sum() < 2:
            return
        for tokens_N in tokens_NP.T:
            known, inverse_N = np.unique(tokens_N, return_inverse=True)
            yield inverse_N, len(known), int(known[0] < 0)
