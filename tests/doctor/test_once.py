"""What several rules ask of a curve or a case is computed once."""

from __future__ import annotations

import numpy as np
import pytest
from cases import case_of, falling

from trimtab.doctor.case import Case
from trimtab.doctor.reading.curves import Curve, running_median
from trimtab.doctor.reading.once import once
from trimtab.doctor.reading.spikes import NEARBY, over_at


def test_each_question_is_answered_once_and_each_thing_for_itself() -> None:
    asked = []

    @once
    def above(curve: Curve, bound: float, least: int = 0) -> int | None:
        asked.append((curve, bound, least))
        num = int((curve.values > bound).sum())
        return num if num > least else None

    one, other = (Curve(np.arange(5), np.arange(5.0) + more) for more in (0, 1))
    assert [above(one, 2), above(one, 2), above(one, 3), above(other, 2)] == [2, 2, 1, 3]
    assert [above(one, 2, least=2), above(one, 2, least=2)] == [None, None]
    assert asked == [(one, 2, 0), (one, 3, 0), (other, 2, 0), (one, 2, 2)]


def test_what_is_shared_cannot_be_written_and_is_new_as_the_series_grows() -> None:
    case = case_of(falling(100))
    series = case.loss()
    curve = Curve.of(series)
    assert series is not None
    assert curve is not None
    assert Curve.of(series) is curve
    smooth = curve.running_median(5)
    assert curve.running_median(5) is smooth
    with pytest.raises(ValueError, match="read-only"):
        smooth[0] = 0.0
    series.append(np.array([101]), np.array([9.0]))
    grown = Curve.of(series)
    assert grown is not None
    assert len(grown) == 101
    assert len(grown.running_median(5)) == 101


def test_a_case_is_of_its_history_as_it_is_and_one_that_has_grown_is_another() -> None:
    case = case_of(falling(100))
    assert case.validation_loss() is None
    case.history.add("validation/loss", np.array([50, 100]), np.array([3.0, 2.0]))
    assert case.validation_loss() is None
    grown = Case(case.history)
    assert grown.validation_loss() is case.history.get("validation/loss")
    assert grown.loss() is case.loss()  # with what was read off its curve


def test_the_end_of_a_spike_is_the_same_whether_it_is_near_or_far() -> None:
    for seed in range(60):
        random = np.random.default_rng(seed)
        values = np.cumsum(random.normal(size=int(random.integers(2, 4 * NEARBY))))
        begin, num = (int(random.integers(0, len(values))) for _ in range(2))
        part = values[begin : begin + num + 1]
        bound, first = float(np.quantile(part, random.uniform(0.0, 0.5))), begin + int(random.integers(0, 9))
        below = begin + np.flatnonzero(running_median(part, 5) <= bound)
        found = over_at(Curve(np.arange(len(values)), values), slice(begin, begin + num + 1), first, bound)
        assert found == next((int(at) for at in below if at >= first), None)
