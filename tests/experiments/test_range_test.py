"""What a range test says of a curve whose shape is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import UsageError
from trimtab.experiments.range_picture import text_curve
from trimtab.experiments.range_test import Divergence, judge, ramp


def curve(rates: list[float], falls_at: float, diverges_at: float = math.inf, noise: float = 0.0) -> list[float]:
    """From 6 to 3, fastest at `falls_at`, and doubling with the rate beyond `diverges_at`."""
    x = np.log10(rates)
    loss = 3.0 + 3.0 / (1.0 + np.exp(4.0 * (x - math.log10(falls_at))))
    loss = loss * np.maximum(1.0, np.asarray(rates) / diverges_at)
    return [float(value) for value in loss + noise * np.random.default_rng(0).standard_normal(len(rates))]


def test_the_ramp_rises_by_the_same_factor() -> None:
    rates = ramp(1e-6, 1.0, 61)
    assert (rates[0], rates[-1]) == pytest.approx((1e-6, 1.0))
    assert [b / a for a, b in itertools.pairwise(rates)] == pytest.approx([10**0.1] * 60)
    for wrong in ((1.0, 0.1, 100), (0.0, 1.0, 100), (1e-3, math.inf, 100), (1e-6, 1.0, 19)):
        with pytest.raises(UsageError):
            ramp(*wrong)


@given(power=st.floats(-4.0, -1.5), steps=st.integers(80, 200), noise=st.sampled_from([0.0, 0.05]))
def test_the_steepest_descent_is_found(power: float, steps: int, noise: float) -> None:
    rates = ramp(1e-6, 1.0, steps)
    test = judge(rates, curve(rates, 10**power, noise=noise), 2.0)
    assert test.steepest is not None
    assert abs(math.log10(test.steepest) - power) < 0.3
    assert test.diverged is None
    assert test.suggestion == pytest.approx(test.steepest, rel=0.05)
    assert "does not diverge" in test.why


def test_smoothing_keeps_a_straight_line() -> None:
    """A line of least squares through a line is that line, at the ends, too."""
    rates = ramp(1e-4, 1.0, 50)
    line = [5.0 - 0.3 * math.log10(rate) for rate in rates]
    assert judge(rates, line, 9.0).smoothed == pytest.approx(line)


def test_of_two_rules_the_lower_rate_is_suggested_and_named() -> None:
    rates = ramp(1e-6, 1.0, 120)
    far = judge(rates, curve(rates, 1e-3, diverges_at=0.1), 2.0)
    assert far.diverged is not None
    assert 0.2 < far.diverged < 0.5, "twice the best, seen by a running mean"
    assert far.suggestion == pytest.approx(1e-3, rel=0.5)
    assert "below a tenth of" in far.why
    near = judge(rates, curve(rates, 8e-2, diverges_at=0.1), 2.0)
    assert near.diverged is not None
    assert near.suggestion == pytest.approx(near.diverged / 10, rel=0.05)
    assert near.why.startswith("a tenth of")


def test_a_loss_that_is_no_number_has_diverged() -> None:
    rates = ramp(1e-6, 1.0, 60)
    losses = [*curve(rates, 1e-3)[:50], math.nan]
    test = judge(rates[:51], losses, 2.0)
    assert test.diverged == rates[50]
    assert math.isnan(test.smoothed[50])
    assert all(math.isfinite(value) for value in test.smoothed[:50])
    divergence = Divergence(2.0)
    assert [divergence.is_reached(loss) for loss in (3.0, math.inf, 3.0)] == [False, True, True]
    with pytest.raises(UsageError):
        Divergence(1.0)


def test_one_outlier_is_no_divergence() -> None:
    """A running mean that keeps 0.8: one loss of three times the others lifts it by 0.2 of what it is above them."""
    divergence = Divergence(2.0)
    assert not any(divergence.is_reached(loss) for loss in [*[3.0] * 10, 9.0, *[3.0] * 10])
    assert any(divergence.is_reached(loss) for loss in [9.0] * 4)


@pytest.mark.parametrize("loss", [3.0, "rising"])
def test_where_nothing_falls_nothing_is_suggested(loss: float | str) -> None:
    rates = ramp(1e-6, 1.0, 60)
    losses = [3.0 + (0.01 * index if loss == "rising" else 0.0) for index in range(60)]
    test = judge(rates, losses, 2.0)
    assert test.suggestion is None
    assert "does not fall" in test.why
    assert "*" in text_curve(test)


def test_a_scaled_run_is_told_what_to_set() -> None:
    rates = ramp(1e-6, 1.0, 100)
    plain, scaled = (judge(rates, curve(rates, 4e-3), 2.0, scale) for scale in (1.0, 4.0))
    assert plain.suggestion is not None
    assert scaled.suggestion == pytest.approx(plain.suggestion / 4.0, rel=0.05)
    assert "applies 4 of what is set" in scaled.why


def test_the_picture_in_text_has_curve_suggestion_and_ends() -> None:
    rates = ramp(1e-6, 1.0, 100)
    test = judge(rates, curve(rates, 1e-3), 2.0)
    lines = text_curve(test, width=60, height=10).splitlines()
    assert len(lines) == 12
    assert lines[0].startswith("6.00 |*")
    assert lines[9].startswith("3.00 |")
    assert lines[9].rstrip().endswith("*")
    assert "|" in lines[1][7:], "the suggestion"
    assert lines[-1].split() == ["1e-06", "learning", "rate", "1e+00"]
    assert all(len(line) <= 66 for line in lines)
    assert "no loss is a number" in text_curve(judge(rates[:1] * 2, [math.nan, math.nan], 2.0))


def test_a_loss_that_fell_and_is_back_above_where_it_began_has_diverged() -> None:
    """From ln V twice the best is far above anything that a classifier of V tokens gives."""
    losses = [*np.linspace(7.6, 7.0, 30), *np.linspace(7.0, 8.2, 20)]
    watch = Divergence(2.0)
    reached = [watch.is_reached(loss) for loss in losses]
    assert reached.index(True) in range(38, 46)
    steady = Divergence(2.0)
    assert not any(steady.is_reached(7.6 + 0.01 * (step % 2)) for step in range(50)), "it never fell"
