"""What is decided by counting, or seen early, is what the whole computation says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.doctor.reading import spikes
from trimtab.doctor.reading.by_counting import is_beyond_usual, is_quiet, may_rise
from trimtab.doctor.reading.curves import Curve, local_noise
from trimtab.doctor.reading.medians import is_median_at_most
from trimtab.doctor.reading.outliers import farthest
from trimtab.doctor.reading.spikes import spikes_of

FINITE = st.floats(-1e6, 1e6)


@given(values=st.lists(st.integers(-3, 3), min_size=1, max_size=12), bound=FINITE | st.integers(-3, 3).map(float))
def test_a_median_is_at_most_a_bound(values: list[int], bound: float) -> None:
    assert is_median_at_most(np.array(values, np.float64), bound) == (np.median(values) <= bound)


def rough(seed: int, num: int) -> Curve:
    random = np.random.default_rng(seed)
    values = np.exp(-np.arange(num) / num) + 0.1 * random.standard_t(2, num) * np.linspace(1.0, 1.0 + seed % 3, num)
    return Curve(np.arange(1, num + 1), values)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 99), num=st.integers(120, 900), times=st.floats(0.5, 4.0))
def test_a_place_is_quiet_only_where_its_noise_is_less(seed: int, num: int, times: float) -> None:
    curve, width = rough(seed, num), 60
    places = np.unique(np.random.default_rng(seed).integers(8, num, 40))
    noise = local_noise(curve.values, width)[places]
    bounds = noise * np.random.default_rng(seed + 1).uniform(0.7, times + 0.7, len(places))
    bounds = np.maximum(bounds, 1.001 * curve.noise)
    assert (noise < bounds)[is_quiet(curve, width, places, bounds)].all()


def test_most_places_are_known_to_be_quiet() -> None:
    curve = rough(0, 2000)
    places = np.arange(500, 2000, 20)
    bounds = 2.0 * local_noise(curve.values, 200)[places]
    assert is_quiet(curve, 200, places, bounds).mean() > 0.9


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 99), width=st.integers(60, 300), digits=st.integers(1, 8))
def test_what_is_beyond_what_one_in_twenty_exceeds(seed: int, width: int, digits: int) -> None:
    excess = np.round(np.random.default_rng(seed).standard_t(2, 900), digits)
    places = np.flatnonzero(excess > 1.0)
    expected = [
        at < width or bool(excess[at] > 2.0 * np.quantile(excess[at - width : at], 0.95)) for at in places.tolist()
    ]
    assert is_beyond_usual(excess, width, places).tolist() == expected


@pytest.mark.parametrize("seed", range(20))
def test_medians_of_fifteen_rise_only_where_they_may(seed: int) -> None:
    curve = rough(seed, 200)
    low, values = curve.below_trailing_median(15), curve.running_median(15)
    for least in (0.02, 0.1, 0.2, 0.4):
        rises = bool((values[8:] - low[1 : len(low) - 7] > least).any())
        assert may_rise(curve.values, curve.running_median(5), low, 8, least) or not rises


def test_the_noise_of_a_place_is_known_once() -> None:
    curve = rough(1, 400)
    places = np.array([50, 390])
    expected = local_noise(curve.values, 40, places, curve.noise)
    assert (curve.local_noise(40, places) == expected).all()
    assert curve.noise_at(390, 40) == expected[390]
    assert curve.noise_at(100, 40) == local_noise(curve.values, 40)[100]


@pytest.mark.parametrize("seed", range(12))
def test_lone_spikes_are_the_same_together_and_one_by_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random, steps = np.random.default_rng(seed), np.arange(1, 1_501)
    values = np.exp(-steps / 1_500) + 0.1 * random.normal(size=1_500)
    for at in random.choice(1_490, 18, replace=False).tolist():
        values[at : at + int(random.choice([1, 1, 1, 1, 2, 4]))] += random.uniform(4.0, 9.0)
    found = []
    for few in (0, 10_000):
        monkeypatch.setattr(spikes, "FEW", few)
        found.append([one[:5] for one in spikes_of(Curve(steps, values), values, buckets=bool(seed % 2))])
    assert found[0] == found[1]
    assert len(found[0]) >= 8


@pytest.mark.parametrize("seed", range(12))
def test_the_loss_that_is_farthest_above_its_median(seed: int) -> None:
    curve = rough(seed, 40 + 30 * seed)
    begin = len(curve) // 4
    assert farthest(curve, begin) == begin + int((curve.values - curve.running_median(15))[begin:].argmax())


@pytest.mark.parametrize("num", range(6, 10))
def test_of_few_values_none_is_a_spike(num: int) -> None:
    values = 1.0 + 0.1 * np.random.default_rng(num).normal(size=num)
    assert not spikes_of(Curve(np.arange(num), values), values, buckets=False)
