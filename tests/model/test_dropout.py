from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trimtab.model import Dropout, set_dropout_factor


@settings(deadline=None, max_examples=25)
@given(rate=st.floats(0.01, 0.9), factor=st.floats(0.0, 3.0), seed=st.integers(0, 1000))
def test_drops_the_share_it_should_and_keeps_the_mean(rate: float, factor: float, seed: int) -> None:
    torch.manual_seed(seed)
    dropout = Dropout(rate)
    set_dropout_factor(dropout, factor)
    expected = min(0.95, rate * factor)
    y = dropout(torch.full((100_000,), 2.0))
    assert (y == 0).float().mean().item() == pytest.approx(expected, abs=0.01)
    torch.testing.assert_close(y[y != 0], torch.full_like(y[y != 0], 2.0 / (1.0 - expected)), rtol=1e-4, atol=0)


def test_gradient_is_dropped_and_scaled_like_the_value() -> None:
    x = torch.ones(1000, requires_grad=True)
    y = Dropout(0.3)(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


def test_identity_in_eval_mode_and_at_rate_zero() -> None:
    x = torch.randn(8)
    assert Dropout(0.5).eval()(x) is x
    state = torch.get_rng_state()
    assert Dropout(0.0)(x) is x
    assert torch.equal(torch.get_rng_state(), state)


def test_dropped_values_may_be_infinite() -> None:
    y = Dropout(0.5)(torch.full((100,), float("inf")))
    assert not y.isnan().any()


def test_rates_in_bfloat16_are_not_rounded() -> None:
    torch.manual_seed(0)
    y = Dropout(0.001)(torch.ones(2_000_000, dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16
    assert (y == 0).float().mean().item() == pytest.approx(0.001, rel=0.1)


def test_a_rate_must_be_a_probability() -> None:
    with pytest.raises(ValueError, match=r"Received: 1\.0"):
        Dropout(1.0)
    with pytest.raises(ValueError, match="negative"):
        set_dropout_factor(Dropout(0.1), -1.0)


def test_factor_is_no_state_and_changes_nothing_at_rate_zero() -> None:
    model = nn.Sequential(Dropout(0.0), Dropout(0.2))
    assert not model.state_dict()
    assert set_dropout_factor(model, 2.0) == 1


def test_foreign_dropout_is_relative_to_its_first_rate_also_in_copies() -> None:
    model = nn.Sequential(nn.Dropout(0.2), nn.Dropout(0.0), nn.TransformerEncoderLayer(8, 2, 8, dropout=0.4))
    assert set_dropout_factor(model, 0.5) == 4
    assert model[0].p == pytest.approx(0.1)
    copied = copy.deepcopy(model)
    set_dropout_factor(copied, 3.0)
    assert copied[0].p == pytest.approx(0.6)
    assert copied[1].p == 0.0
    assert copied[2].dropout.p == 0.95
    set_dropout_factor(model, 1.0)
    assert model[0].p == pytest.approx(0.2)
