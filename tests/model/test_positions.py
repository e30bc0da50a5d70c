from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trimtab.model.positions import RotaryPositions, SinusoidalPositions, rotate

ROTARY = RotaryPositions(head_size=8, max_positions=512, base=10_000.0)


def turned(x_K: torch.Tensor, position: int) -> torch.Tensor:
    return rotate(x_K.view(1, 1, 1, -1), ROTARY(torch.tensor([position]))).flatten()


@given(first=st.integers(0, 255), second=st.integers(0, 255), shift=st.integers(0, 256), seed=st.integers(0, 99))
def test_products_depend_on_the_distance_alone(first: int, second: int, shift: int, seed: int) -> None:
    q_K, k_K = torch.randn(2, 8, generator=torch.Generator().manual_seed(seed))
    here = turned(q_K, first) @ turned(k_K, second)
    there = turned(q_K, first + shift) @ turned(k_K, second + shift)
    torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-4)


def test_position_zero_does_not_turn_and_lengths_stay() -> None:
    x_K = torch.randn(8)
    torch.testing.assert_close(turned(x_K, 0), x_K)
    torch.testing.assert_close(turned(x_K, 300).norm(), x_K.norm())


def test_a_quarter_turn() -> None:
    rotary = RotaryPositions(head_size=2, max_positions=2, base=10.0)
    rotation = rotary(torch.tensor([1]))
    expected = torch.tensor([math.cos(1.0) - 2 * math.sin(1.0), math.sin(1.0) + 2 * math.cos(1.0)])
    torch.testing.assert_close(rotate(torch.tensor([[[[1.0, 2.0]]]]), rotation).flatten(), expected)


def test_bfloat16_is_turned_in_fp32() -> None:
    x_BTNK = torch.randn(2, 5, 3, 8).bfloat16()
    rotation = ROTARY(torch.arange(300, 305))
    expected = rotate(x_BTNK.float(), rotation).bfloat16()
    assert torch.equal(rotate(x_BTNK, rotation), expected)


def test_the_compiled_form_is_the_same() -> None:
    x_BTNK = torch.randn(2, 5, 3, 8)
    rotation = ROTARY(torch.arange(10).view(2, 5))
    compiled = torch.compile(rotate, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x_BTNK, rotation), rotate(x_BTNK, rotation))


@pytest.mark.parametrize("hidden_size", [6, 7])
def test_sinusoids_of_the_paper(hidden_size: int) -> None:
    vectors = SinusoidalPositions(hidden_size, max_positions=20)(torch.tensor([[0, 13]]))
    assert vectors.shape == (1, 2, hidden_size)
    scale = math.sqrt(hidden_size)
    even = hidden_size + hidden_size % 2
    assert vectors[0, 1, 2].item() * scale == pytest.approx(math.sin(13 / 10_000 ** (2 / even)), abs=1e-6)
    assert vectors[0, 1, 3].item() * scale == pytest.approx(math.cos(13 / 10_000 ** (2 / even)), abs=1e-6)
