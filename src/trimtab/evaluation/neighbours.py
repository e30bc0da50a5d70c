"""What the nearest rows tell of a row's class or number, where rows are of one length: numbers, pixels and forms.

A token's number counts as its value, as in texts of characters or bytes, which stand for levels in their order.
Shape suffixes: N rows · M rows asked · K classes · P places.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.integer[Any]]

NEAREST: Final = 15
FEWEST_PLACES, MOST_PLACES = 4, 1024
"""Rows of fewer have little to be near by; longer ones are texts, and far from each other whatever they say."""
AT_ONCE: Final = 500
"""Rows whose distances from all others are held in memory."""


class Told(NamedTuple):
    """Of rows that were counted, each by the others, and of rows elsewhere: whether the answer is right, and of the
    former how sure it is."""

    right_N: NDArray[np.bool_]
    sure_N: NDArray[np.float64]
    elsewhere_M: NDArray[np.bool_]

    @property
    def accuracy(self) -> float:
        """The part that is right."""
        return float(self.right_N.mean())


def by_neighbours(
    rows: list[Tokens], classes_N: NDArray[np.int64], elsewhere: list[Tokens], classes_M: NDArray[np.int64]
) -> Told | None:
    """What most of the `NEAREST` other rows are tells of each; how sure, the votes that it leads by. None where rows
    are not of one length.

    Source: Fix and Hodges 1951; Cover and Hart 1967, doi:10.1109/TIT.1967.1053964.
    """
    if (found := _values(rows, {len(one) for one in elsewhere})) is None:
        return None
    values_NP, middle_P = found
    answers_N, sure_N = _vote(values_NP, classes_N)
    others_MP = (
        np.stack(elsewhere).astype(np.float32) - middle_P if elsewhere else np.empty((0, len(middle_P)), np.float32)
    )
    answers_M, _ = _vote(values_NP, classes_N, others_MP)
    return Told(answers_N == classes_N, sure_N, answers_M == classes_M)


def number_by_neighbours(rows: list[Tokens], targets_N: NDArray[np.float64]) -> float | None:
    """How much of the spread of numbers, by their ranks, the mean rank of the `NEAREST` other rows explains: 1 where it
    is each number's own, 0 and below where it says nothing. None where rows are not of one length, or numbers alike."""
    if not np.isfinite(targets_N).all() or (found := _values(rows)) is None:
        return None
    _, places_N, ties = np.unique(targets_N, return_inverse=True, return_counts=True)
    ranks_N = (np.cumsum(ties) - (ties - 1) / 2)[places_N]
    if len(ties) == 1:
        return None
    told_N = np.concatenate([ranks_N[nearest].mean(axis=1) for nearest in _nearest(found[0])])
    return float(1.0 - ((ranks_N - told_N) ** 2).sum() / ((ranks_N - ranks_N.mean()) ** 2).sum())


def _values(
    rows: list[Tokens], others: set[int] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Rows of one length less the middle of each place, [N, P] and [P], as distances of large numbers would be rounded;
    None where `rows`, or the lengths of others, are not of one length, or of one that tells little."""
    sizes = {len(one) for one in rows} | (others or set())
    if len(sizes) != 1 or not FEWEST_PLACES <= (size := sizes.pop()) <= MOST_PLACES or len(rows) <= NEAREST:
        return None
    values_NP = np.stack(rows).astype(np.float32)
    if (values_NP != values_NP[:1]).any(axis=0).sum() < min(FEWEST_PLACES, size):
        return None
    middle_P = values_NP.mean(axis=0)
    return values_NP - middle_P, middle_P


def _nearest(
    values_NP: NDArray[np.float32], asked_MP: NDArray[np.float32] | None = None
) -> Iterator[NDArray[np.int64]]:
    """The nearest rows of each that is asked, [M', NEAREST], some at once; of each row itself its nearest others."""
    squares_N, asked = (values_NP**2).sum(axis=1), values_NP if asked_MP is None else asked_MP
    for begin in range(0, len(asked), AT_ONCE):
        part = asked[begin : begin + AT_ONCE]
        distances = squares_N - 2.0 * part @ values_NP.T  # less the square of the row itself, which orders nothing
        if asked_MP is None:
            distances[np.arange(len(part)), begin + np.arange(len(part))] = np.inf
        yield np.argpartition(distances, NEAREST, axis=1)[:, :NEAREST]


def _vote(
    values_NP: NDArray[np.float32], classes_N: NDArray[np.int64], asked_MP: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The class that most of the nearest rows have, and the votes by which it leads, of each row that is asked."""
    # A rare class may be in no row that was taken; two are needed for one to lead.
    num_classes = max(2, int(classes_N.max()) + 1)
    answers, sure = [np.empty(0, np.int64)], [np.empty(0)]
    for nearest in _nearest(values_NP, asked_MP):
        of_class = np.arange(len(nearest))[:, None] * num_classes + classes_N[nearest]
        votes_MK = np.bincount(of_class.ravel(), minlength=len(nearest) * num_classes).reshape(-1, num_classes)
        second_M, first_M = np.partition(votes_MK, -2, axis=1)[:, -2:].T
        answers.append(votes_MK.argmax(axis=1))
        sure.append((first_M - second_M).astype(np.float64))
    return np.concatenate(answers), np.concatenate(sure)
