"""What the nearest rows tell of a row's class, where rows are of one length: numbers, pixels and forms.

A token's number counts as its value, as in texts of characters or bytes, which stand for levels in their order.
Shape suffixes: N rows · M rows asked · K classes · P places.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.integer[Any]]

NEAREST: Final = 15
FEWEST_PLACES, MOST_PLACES = 4, 1024
"""Rows of fewer have little to be near by; of longer ones the beginning is all that is counted."""
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
    sizes = {len(one) for one in (*rows, *elsewhere)}
    if len(sizes) != 1 or not FEWEST_PLACES <= (size := sizes.pop()) <= MOST_PLACES or len(rows) <= NEAREST:
        return None
    values_NP = np.stack(rows).astype(np.float32)
    if (values_NP != values_NP[:1]).any(axis=0).sum() < min(FEWEST_PLACES, size):
        return None
    middle_P = values_NP.mean(axis=0)
    values_NP -= middle_P  # distances of large numbers would be rounded
    answers_N, sure_N = _vote(values_NP, classes_N, values_NP, of_themselves=True)
    others_MP = np.stack(elsewhere).astype(np.float32) - middle_P if elsewhere else np.empty((0, size), np.float32)
    answers_M, _ = _vote(values_NP, classes_N, others_MP)
    return Told(answers_N == classes_N, sure_N, answers_M == classes_M)


def _vote(
    values_NP: NDArray[np.float32],
    classes_N: NDArray[np.int64],
    asked_MP: NDArray[np.float32],
    *,
    of_themselves: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The class that most of the nearest rows have, and the votes by which it leads, of each row that is asked."""
    # A rare class may be in no row that was taken; two are needed for one to lead.
    num_classes, squares_N = max(2, int(classes_N.max()) + 1), (values_NP**2).sum(axis=1)
    answers_M, sure_M = np.zeros(len(asked_MP), np.int64), np.zeros(len(asked_MP))
    for begin in range(0, len(asked_MP), AT_ONCE):
        part = asked_MP[begin : begin + AT_ONCE]
        distances = squares_N - 2.0 * part @ values_NP.T  # less the square of the row itself, which orders nothing
        if of_themselves:
            distances[np.arange(len(part)), begin + np.arange(len(part))] = np.inf
        nearest = np.argpartition(distances, NEAREST, axis=1)[:, :NEAREST]
        of_class = np.arange(len(part))[:, None] * num_classes + classes_N[nearest]
        votes_MK = np.bincount(of_class.ravel(), minlength=len(part) * num_classes).reshape(len(part), num_classes)
        second_M, first_M = np.partition(votes_MK, -2, axis=1)[:, -2:].T
        answers_M[begin : begin + len(part)] = votes_MK.argmax(axis=1)
        sure_M[begin : begin + len(part)] = first_M - second_M
    return answers_M, sure_M
