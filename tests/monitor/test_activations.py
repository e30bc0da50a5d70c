"""Distributions of activations and what units say, against plain calculations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from trimtab.monitor.probes import activations
from trimtab.monitor.probes.activations import FLAT, Units, counted, described, moments


def distribution_of(x: torch.Tensor) -> tuple[float, ...]:
    """Mean, root of the mean square, kurtosis."""
    return tuple(float(one) for one in described(moments(x)[None]))


@pytest.mark.parametrize("at_once", [7, 1 << 22])
def test_moments_against_numpy_in_float64(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations, "_AT_ONCE", at_once)
    x = torch.randn(3, 50, 8, generator=torch.Generator().manual_seed(0)).square() - 3.0
    values = x.numpy().astype(np.float64).ravel()
    mean, rms, kurtosis = distribution_of(x)
    centred = values - values.mean()
    assert mean == pytest.approx(values.mean(), rel=1e-12)
    assert rms == pytest.approx(math.sqrt((values**2).mean()), rel=1e-12)
    assert kurtosis == pytest.approx((centred**4).mean() / (centred**2).mean() ** 2, rel=1e-12)
    assert distribution_of(torch.tensor([1.0, -1.0, 1.0, -1.0]))[2] == 1.0
    assert math.isnan(distribution_of(torch.ones(4))[2])


def test_moments_of_a_narrow_dtype_with_a_large_mean_lose_nothing() -> None:
    x = (torch.randn(4000, generator=torch.Generator().manual_seed(0)) * 0.5 + 100).bfloat16()
    values = x.double().numpy()
    assert distribution_of(x)[2] == pytest.approx(
        float(((values - values.mean()) ** 4).mean() / values.var() ** 2), rel=1e-9
    )


def test_units_of_relu_that_never_are_positive() -> None:
    """Unit 0 is positive once, in a later portion; unit 1 never; unit 2 is nearly 0, which is not 0."""
    units = Units()
    units.add(torch.tensor([[-1.0, -2.0, 1e-6], [-3.0, 0.0, -1.0]]), F.relu)
    units.add(torch.tensor([[2.0, -2.0, -1.0]]), F.relu)
    assert units.dead_fraction == pytest.approx(1 / 3)
    assert units.saturated_fraction == pytest.approx(7 / 9)


def test_units_of_gelu_that_are_always_flat() -> None:
    """-4 gives -1.3e-4 and passes no gradient; 0.001 gives 5e-4 and passes half of it; -1 gives -0.16."""
    units = Units()
    units.add(torch.tensor([[-4.0, 0.001, -1.0, 1.0], [-5.0, -0.001, -4.0, 1.0]]), F.gelu)
    assert units.dead_fraction == 0.25
    slopes = [0.5 * (1 + math.erf(x / math.sqrt(2))) + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi) for x in
              (-4.0, 0.001, -1.0, 1.0, -5.0, -0.001, -4.0, 1.0)]  # fmt: skip
    assert units.saturated_fraction == sum(abs(slope) < FLAT for slope in slopes) / 8 == 3 / 8


def test_units_of_tanh_are_saturated_at_both_ends_and_alive_at_zero() -> None:
    units = Units()
    units.add(torch.tensor([[-5.0, 5.0, 0.0, 1.0]]), torch.tanh)
    assert units.saturated_fraction == 0.5
    assert units.dead_fraction == 0.0


def test_functions_of_other_widths_have_units_of_their_own() -> None:
    units = Units()
    units.add(torch.tensor([[-1.0, 1.0]]), F.relu)
    units.add(torch.tensor([[-1.0, -1.0, -1.0, 1.0]]), F.relu)
    units.add(torch.tensor([[1.0, -1.0]]), F.relu)
    assert units.dead_fraction == pytest.approx(3 / 6)
    assert units.saturated_fraction == pytest.approx(5 / 8)


def test_nothing_counted_is_not_a_number() -> None:
    units = Units()
    units.add(torch.zeros(0, 4), F.relu)
    assert math.isnan(units.dead_fraction)
    assert math.isnan(units.saturated_fraction)


def test_padding_is_left_out() -> None:
    x = torch.arange(12.0).view(2, 3, 2)
    mask = torch.tensor([[True, True, False], [False, False, True]])
    assert counted(x, mask).tolist() == [[0, 1], [2, 3], [10, 11]]
    assert counted(x, None).shape == (6, 2)
    assert counted(x.flatten(0, 1), mask).shape == (6, 2)
