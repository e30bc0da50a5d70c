"""Medians of windows are np.median's of each window, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from trimtab.doctor.reading.curves import Curve, below_trailing_median, running_median, trailing_median
from trimtab.doctor.reading.medians import are_medians_at_most, lower_quantile, median, medians, quantile, quantiles
from trimtab.doctor.reading.sliding import growing_median, sliding_deviation, sliding_median, sliding_minimum


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    num=st.integers(1, 400),
    part=st.floats(0, 1),
    digits=st.sampled_from([1, 2, 16]),
    tail=st.booleans(),
)
def test_they_are_those_of_numpy(seed: int, num: int, part: float, digits: int, tail: bool) -> None:
    random = np.random.default_rng(seed)
    values = np.round(random.standard_cauchy(num) if tail else random.normal(size=num), digits)  # with many that agree
    width = 1 + int(part * (num - 1))
    windows = sliding_window_view(values, width)
    middles = np.median(windows, axis=1)
    assert sliding_median(values, width).tolist() == middles.tolist()
    assert sliding_minimum(values, width).tolist() == windows.min(axis=1).tolist()
    deviations = np.median(np.abs(windows - middles[:, np.newaxis]), axis=1)
    assert sliding_deviation(values, width).tolist() == deviations.tolist()
    assert median(values) == np.median(values)
    assert medians(windows).tolist() == middles.tolist()
    share = round(part, digits)
    assert quantiles(windows, share).tolist() == np.quantile(windows, share, axis=1).tolist()
    assert quantile(values, share) == np.quantile(values, share)
    assert lower_quantile(values, share) == np.quantile(values, share, method="lower")
    grown = [float(np.median(values[: index + 1])) for index in range(num)]
    assert growing_median(values).tolist() == grown
    before = [float(np.median(values[max(0, index - width) : index])) for index in range(1, num)]
    assert trailing_median(values, width)[1:].tolist() == before
    curve, few = Curve(np.arange(num), values), np.arange(1, num, max(1, num // 20))
    assert curve.trailing_median(width, few)[few].tolist() == [before[place - 1] for place in few.tolist()]
    assert curve.trailing_median(width)[1:].tolist() == before
    half = (num - 1) // 2 if num > 2 else 0
    padded = sliding_window_view(np.pad(values, half, mode="reflect"), 2 * half + 1)
    assert running_median(values, 2 * half + 1).tolist() == np.median(padded, axis=1).tolist()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 999), num=st.integers(800, 4_100), part=st.floats(0, 1), digits=st.sampled_from([0, 1, 16]))
def test_of_many_values_a_sample_tells_where_they_are(seed: int, num: int, part: float, digits: int) -> None:
    random = np.random.default_rng(seed)
    values = np.round(random.standard_t(2, num), digits)
    orders = values, np.sort(values), np.where(np.arange(num) % 16 == 0, values - 9.0, values), np.abs(values)
    for some in (*orders, np.where(values > 1.0, np.inf, values)):
        assert median(some) == np.median(some)
    for some in orders:
        assert quantile(some, part) == np.quantile(some, part)
        assert lower_quantile(some, part) == np.quantile(some, part, method="lower")
    assert np.isnan(median(np.where(np.arange(num) == num // 2, np.nan, values)))


@pytest.mark.parametrize("width", [1, 2, 5, 256, 257, 400, 511, 512, 513])
@pytest.mark.parametrize("digits", [0, 1, 16])
def test_the_middles_of_rows_of_any_width(width: int, digits: int) -> None:
    rows = np.round(np.random.default_rng(width).standard_t(2, (9, width)), digits)
    assert medians(rows).tolist() == np.median(rows, axis=1).tolist()
    assert quantiles(rows, 0.5).tolist() == np.quantile(rows, 0.5, axis=1).tolist()
    bounds = np.median(rows, axis=1) + np.tile([-1e-9, 0.0, 1e-9], 3)
    assert are_medians_at_most(rows, bounds).tolist() == [False, True, True] * 3
    rows[1, width // 2], rows[2, : width // 3], rows[3, : width // 3] = np.nan, np.inf, -np.inf
    assert np.array_equal(medians(rows), np.median(rows, axis=1), equal_nan=True)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), num=st.integers(700, 2_000), digits=st.sampled_from([1, 16]))
def test_the_floor_and_a_few_places_of_a_smoothed_curve(seed: int, num: int, digits: int) -> None:
    random = np.random.default_rng(seed)
    steps = np.cumsum(random.integers(1, 4, num))
    values = np.round(3.0 * np.exp(-np.arange(num) / num) + random.standard_t(2, num), digits)
    curve, whole = Curve(steps, values), Curve(steps, values)
    few = np.concatenate([random.uniform(-9.0, steps[-1] + 9.0, 20), steps[[0, -1, num // 2]]])
    assert curve.floor == whole.smoothed.min()
    assert curve.along(few).tolist() == np.interp(few, steps, whole.smoothed).tolist()
    assert curve.along(few[3:9]).tolist() == curve.along(few)[3:9].tolist()
    assert curve.at(float(few[0])) == np.interp(few[0], steps, whole.smoothed)


@pytest.mark.parametrize("width", [3, 5, 6, 51, 199, 200])
def test_what_is_no_number_stays_in_its_windows(width: int) -> None:
    values = np.random.default_rng(0).normal(size=300)
    values[150] = np.nan
    expected = np.isnan(sliding_window_view(values, width)).any(axis=1)
    assert (np.isnan(sliding_median(values, width)) == expected).all()
    assert (np.isnan(sliding_deviation(values, width)) == expected).all()
    assert np.isnan([median(values[:0]), median(values), median(values[145:155])]).all()


@pytest.mark.parametrize(("number", "width"), [(30, 15), (400, 20), (1_000, 50), (4_000, 200), (50, 80)])
def test_what_a_trailing_median_is_nowhere_below(number: int, width: int) -> None:
    values = np.exp(-np.arange(number) / number) + np.random.default_rng(number).standard_t(2, number)
    exact, below = trailing_median(values, width), below_trailing_median(values, width)
    assert np.isnan(below[0])
    assert (below[1:] <= exact[1:]).all()
    late = below[width:]
    assert width < 50 or not len(late) or float(np.median(exact[width:] - late)) < 1.5
