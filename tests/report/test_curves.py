"""What is drawn keeps the extremes, the gaps and the places of the samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.report.curves import Curve, robust_range, smoothed, stretches
from trimtab.runs import Series


def curve_of(values: np.ndarray) -> Curve:
    series = Series()
    series.append(np.arange(1, len(values) + 1), values)
    return Curve.of(series)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(float("nan"))), min_size=1, max_size=400), st.integers(1, 50))
def test_columns_keep_extremes_and_count_what_is_not_finite(values: list[float], num_columns: int) -> None:
    array = np.array(values)
    columns = curve_of(array).columns(1, len(array), num_columns)
    assert len(columns.last) <= num_columns
    assert columns.bad.sum() == np.isnan(array).sum()
    assert columns.last[-1] == len(array)
    if np.isfinite(array).any():
        assert np.nanmin(columns.low) == np.nanmin(array)
        assert np.nanmax(columns.high) == np.nanmax(array)


def test_a_part_is_cut_out_by_steps() -> None:
    part = curve_of(np.arange(100.0)).between(11, 20)
    assert part.last.tolist() == list(range(11, 21))
    assert not curve_of(np.full(3, np.nan))


def test_smoothing_keeps_lines_gaps_and_ignores_a_single_far_value() -> None:
    line = np.linspace(5.0, 1.0, 300)
    np.testing.assert_allclose(smoothed(line)[:250], line[:250], atol=0.02)
    spiked = line.copy()
    spiked[150] = 1e6
    np.testing.assert_allclose(smoothed(spiked), smoothed(line), atol=0.02)
    gap = line.copy()
    gap[100:110] = np.nan
    assert np.isnan(smoothed(gap)).tolist() == np.isnan(gap).tolist()


def test_stretches_of_what_is_not_finite() -> None:
    values = np.ones(20)
    values[[4, 5, 6, 12]] = np.inf
    assert curve_of(values).bad_spans() == [(5, 7), (13, 13)]
    assert stretches(np.array([True, False, True, True])) == [slice(0, 1), slice(2, 4)]


def test_a_few_far_values_do_not_make_the_range() -> None:
    values = np.linspace(2.0, 3.0, 1000)
    assert robust_range(values) == (2.0, 3.0)
    values[[100, 500]] = 900.0
    low, high = robust_range(values) or (0, 0)
    assert low == 2.0
    assert high == 3.0
    assert robust_range(np.concatenate((values, np.full(300, 900.0)))) == (2.0, 900.0), "many are no outliers"
    assert robust_range(np.full(3, np.nan)) is None
    assert robust_range(np.array([1.5])) == pytest.approx((1.5, 1.5))
