"""What rows near each other tell of their classes, on rows whose answer is known."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trimtab.evaluation import neighbours
from trimtab.evaluation.counting import count_labels
from trimtab.evaluation.neighbours import NEAREST, by_neighbours, number_by_neighbours

Rows = list[NDArray[np.int64]]
RARE = (np.arange(20_000) == 3).astype(np.int64)
ONES = np.ones(50, np.int64)


def crossed(number: int, seed: int = 0) -> tuple[Rows, NDArray[np.int64]]:
    """Two classes, of which no column tells: whether the first and the fifth are on one side of the middle."""
    draw = np.random.default_rng(seed)
    ways = draw.normal(40.0, 3.0, (number, 8))
    sides = draw.integers(2, size=(number, 2))
    ways[:, [0, 4]] += 24.0 * sides - 12.0
    return [*np.round(ways).astype(np.int64)], (sides[:, 0] == sides[:, 1]).astype(np.int64)


def wrong(labels: NDArray[np.int64], part: float) -> NDArray[np.int64]:
    return np.where(np.random.default_rng(5).random(len(labels)) < part, 1 - labels, labels)


@given(seed=st.integers(0, 1000), num=st.integers(NEAREST + 5, 60), at_once=st.integers(1, 40))
def test_answers_are_those_of_a_search_one_by_one(seed: int, num: int, at_once: int) -> None:
    draw = np.random.default_rng(seed)
    rows, others = draw.normal(1e4, 1e3, (num, 5)).astype(int), draw.normal(1e4, 1e3, (7, 5)).astype(int)
    labels, wanted = draw.integers(3, size=num), draw.integers(3, size=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "AT_ONCE", at_once)
        told = by_neighbours([*rows], labels, [*others], wanted)
    assert told is not None

    def votes(row: NDArray[np.int64], among: list[int]) -> Counter[int]:
        near = sorted(among, key=lambda one: int(((rows[one] - row) ** 2).sum()))[:NEAREST]
        return Counter(labels[near].tolist())

    for at, row in enumerate(rows):
        (_, first), *rest = votes(row, [one for one in range(num) if one != at]).most_common(2)
        assert told.sure_N[at] == first - (rest[0][1] if rest else 0)
    for at, row in enumerate(others):
        (answer, first), *rest = votes(row, list(range(num))).most_common(2)
        if not rest or rest[0][1] < first:
            assert told.elsewhere_M[at] == (answer == wanted[at])


def test_rows_of_one_length_are_told_by_those_near_them() -> None:
    rows, labels = crossed(800)
    held_out, right = crossed(200, seed=1)
    found = count_labels(rows.__getitem__, labels, 2, held_out.__getitem__, right)
    assert found is not None
    assert found["by"] == "the nearest rows"
    assert found["accuracy"] > 0.9
    assert found["validation_accuracy"] > 0.9
    assert found["sure_errors"][0] == 0.0


def test_labels_that_are_wrong_are_as_often_so_where_answers_are_sure() -> None:
    rows, labels = crossed(1200)
    held_out, right = crossed(300, seed=1)
    found = count_labels(rows.__getitem__, wrong(labels, 0.25), 2, held_out.__getitem__, right)
    assert found is not None
    assert found["sure_errors"] == pytest.approx([0.25, 0.25], abs=0.07)
    assert found["validation_accuracy"] > found["accuracy"] + 0.1, "labels there are right"


def test_rows_of_several_lengths_and_short_ones_have_no_neighbours() -> None:
    rows, labels = crossed(100)
    assert by_neighbours([*rows[:-1], rows[-1][:-1]], labels, [], labels[:0]) is None
    assert by_neighbours([row[:3] for row in rows], labels, [], labels[:0]) is None
    assert by_neighbours(rows[:NEAREST], labels[:NEAREST], [], labels[:0]) is None
    told = by_neighbours(rows, labels, [], labels[:0])
    assert told is not None
    assert len(told.elsewhere_M) == 0
    found = count_labels(lambda index: rows[index][: 4 + index % 5], labels, 2, lambda index: rows[index], labels[:20])
    assert found is not None
    assert found["by"] == "runs of tokens"


def test_a_class_so_rare_that_no_row_of_it_is_taken() -> None:
    rows, _ = crossed(200)
    found = count_labels(lambda index: rows[index % 200], RARE, 2, rows.__getitem__, ONES)
    assert found is not None
    assert found["accuracy"] == found["majority"] == 1.0
    assert found["validation_accuracy"] == 0.0


def test_a_number_is_told_by_rows_near_it_unless_it_was_shuffled() -> None:
    draw = np.random.default_rng(0)
    rows = draw.integers(0, 60, (600, 6))
    targets = 0.01 * (rows[:, 0] - 30) * (rows[:, 1] - 30) + 0.1 * rows[:, 2]
    told = number_by_neighbours([*rows], targets)
    assert told is not None
    assert told > 0.4
    shuffled = number_by_neighbours([*rows], draw.permutation(targets))
    assert shuffled == pytest.approx(-1 / NEAREST, abs=0.06)
    # By ranks: a target that lies far out, or a change of scale, says nothing else.
    far = targets.copy()
    far[int(targets.argmax())] = 1e9
    assert number_by_neighbours([*rows], far) == told
    assert number_by_neighbours([*rows], np.exp(0.1 * targets)) == pytest.approx(told, abs=1e-3)
    assert number_by_neighbours([*rows], np.ones(600)) is None
    assert number_by_neighbours([*rows], np.where(np.arange(600) == 3, np.nan, targets)) is None
    assert number_by_neighbours([*rows[:-1], rows[-1, :5]], targets) is None
