from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.data import DataPlan, Order

spans = st.lists(st.tuples(st.integers(0, 120), st.integers(1, 15)), max_size=6)


def plan_of(parts: list[tuple[int, int]]) -> DataPlan:
    plan = DataPlan()
    for start, length in parts:
        plan = plan.excluding(start, start + length)
    return plan


@given(num=st.integers(1, 60), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 2**40))
def test_every_epoch_shows_every_sequence_once(num: int, seed: int, epoch: int) -> None:
    order = Order(num, seed=seed)
    shown = order.sequences_at(np.arange(num) + epoch * num)
    assert sorted(shown.tolist()) == list(range(num))


def test_epochs_and_seeds_differ() -> None:
    order = Order(100, seed=1)
    first, second = np.split(order.sequences_at(np.arange(200)), 2)
    assert (first != second).any()
    assert (first != Order(100, seed=2).sequences_at(np.arange(100))).any()


def test_the_order_is_the_same_in_every_version() -> None:
    assert Order(8, seed=3).sequences_at(np.arange(16)).tolist() == [
        6,
        1,
        5,
        2,
        7,
        4,
        3,
        0,
        7,
        3,
        5,
        6,
        4,
        0,
        2,
        1,
    ]


@given(num=st.integers(1, 20), positions=st.lists(st.integers(0, 200), min_size=1), seed=st.integers(0, 5))
def test_a_position_does_not_depend_on_what_was_asked_before(num: int, positions: list[int], seed: int) -> None:
    used = Order(num, seed=seed)
    together = used.sequences_at(np.array(positions))
    assert together.tolist() == [Order(num, seed=seed).sequence_at(position) for position in positions]
    assert together.tolist() == [used.sequence_at(position) for position in positions]


def test_without_shuffling_sequences_come_as_they_lie() -> None:
    order = Order(3, seed=0, shuffle=False)
    assert order.sequences_at(np.arange(7)).tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_an_order_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Order(0, seed=0)


@given(start=st.integers(0, 100), counts=st.lists(st.integers(0, 12), max_size=8), parts=spans)
def test_advance_leaves_out_what_the_plan_excludes_and_nothing_else(
    start: int, counts: list[int], parts: list[tuple[int, int]]
) -> None:
    order, plan = Order(7, seed=0), plan_of(parts)
    allowed = (p for p in range(start, 10_000) if not any(a <= p < a + n for a, n in parts))
    position, taken = start, []
    for count in counts:
        positions, position = order.advance(position, count, plan)
        assert len(positions) == count
        taken += positions.tolist()
    assert taken == [next(allowed) for _ in taken]


@given(parts=spans)
def test_a_plan_survives_json(parts: list[tuple[int, int]]) -> None:
    plan = plan_of(parts)
    assert DataPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@given(parts=spans)
def test_excluded_ranges_are_merged(parts: list[tuple[int, int]]) -> None:
    covered = {p for start, length in parts for p in range(start, start + length)}
    plan = plan_of(parts)
    assert {p for start, end in plan.excluded for p in range(start, end)} == covered
    assert all(end < start for (_, end), (start, _) in zip(plan.excluded, plan.excluded[1:], strict=False))
    assert plan.excluding(5, 5) == plan


@pytest.mark.parametrize("excluded", [((3, 3),), ((5, 2),), ((0, 4), (4, 6)), ((4, 6), (0, 2)), ((-1, 2),)])
def test_ranges_out_of_order_are_refused(excluded: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match="rising"):
        DataPlan(excluded)
