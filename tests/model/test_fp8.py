"""Products of 8-bit floats: what is computed, and the scales that follow from earlier maxima."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.config import DecoderConfig
from trimtab.errors import ConfigError
from trimtab.model import build_model, fuses_activation
from trimtab.model.feed_forward import gelu_by_sigmoid
from trimtab.model.fp8 import E4M3, E5M2, DelayedScaling, Fp8Linear, power_of_two, prepare_fp8, saturated

NO, YES = torch.tensor(0.0), torch.tensor(1.0)


def _layer(bias: bool = True, history: int = 4, margin: int = 0) -> tuple[nn.Linear, Fp8Linear, DelayedScaling]:
    torch.manual_seed(0)
    plain = nn.Linear(64, 48, bias=bias).to(torch.bfloat16)
    narrow = Fp8Linear(plain)
    return plain, narrow, DelayedScaling({"layer": narrow}, history, margin)


def _pass(layer: nn.Module, x: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = layer(x)
    torch.autograd.backward(y, upstream)
    assert x.grad is not None
    return y.detach(), x.grad


def _data(scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 16, 64, generator=generator) * scale
    return x.to(torch.bfloat16), (torch.randn(2, 16, 48, generator=generator) * 1e-6).to(torch.bfloat16)


@given(st.floats(2.0**-99, 2.0**99, width=32))
def test_the_largest_power_of_two_not_above(value: float) -> None:
    found = float(power_of_two(torch.tensor(value)))
    assert found <= value < 2 * found
    assert math.frexp(found)[0] == 0.5


def test_gelu_by_sigmoid_is_gelu_by_tanh() -> None:
    x = torch.linspace(-12, 12, 4001).requires_grad_()
    y = gelu_by_sigmoid(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    wide = x.detach().double().requires_grad_()
    exact = F.gelu(wide, approximate="tanh")
    (exact_gradient,) = torch.autograd.grad(exact.sum(), wide)
    torch.testing.assert_close(y.double(), exact, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient.double(), exact_gradient, rtol=1e-5, atol=1e-6)
    assert gelu_by_sigmoid(x.bfloat16()).dtype == torch.bfloat16


def test_what_does_not_fit_saturates_and_nan_stays() -> None:
    x = torch.tensor([1e9, -1e9, 448.0, 1.0, math.nan])
    assert saturated(x, torch.tensor(1.0), E4M3).float()[:4].tolist() == [448.0, -448.0, 448.0, 1.0]
    assert saturated(x, torch.tensor(1.0), E5M2).float()[:4].tolist() == [57344.0, -57344.0, 448.0, 1.0]
    assert torch.isnan(saturated(x, torch.tensor(1.0), E4M3).float()[4])
    assert float(saturated(torch.tensor(3.0), torch.tensor(4.0), E4M3).float()) == 12.0


@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_product_of_what_was_narrowed(bias: bool) -> None:
    """Against float64, step for step, with scales of hand-made maxima."""
    plain, layer, scaling = _layer(bias)
    x, upstream = _data()
    with scaling.measuring():
        _pass(layer, x, upstream)
    scaling.update(NO)
    plain.zero_grad()
    y, x_gradient = _pass(layer, x, upstream)

    def narrowed(tensor: Tensor, most: float, dtype: torch.dtype) -> Tensor:
        scale = 2.0 ** math.floor(math.log2(most / float(tensor.detach().abs().max())))
        return ((tensor.detach().double() * scale).float().to(dtype).double() / scale).flatten(0, -2)

    x8, w8 = narrowed(x, 448.0, E4M3), narrowed(plain.weight, 448.0, E4M3)
    g8 = narrowed(upstream, 57344.0, E5M2)
    expected = x8 @ w8.t() + (plain.bias.detach().double() if bias else 0.0)
    torch.testing.assert_close(y.flatten(0, 1).double(), expected, rtol=2**-8, atol=1e-4)
    torch.testing.assert_close(x_gradient.flatten(0, 1).double(), g8 @ w8, rtol=2**-8, atol=1e-10)
    assert plain.weight.grad is not None
    plain_gradient = upstream.flatten(0, 1).double().t() @ x.flatten(0, 1).double()
    torch.testing.assert_close(plain.weight.grad.double(), plain_gradient, rtol=2**-6, atol=1e-7)
    if bias:
        assert plain.bias.grad is not None
        torch.testing.assert_close(plain.bias.grad.double(), upstream.double().sum((0, 1)), rtol=2**-7, atol=1e-9)


def test_it_is_near_bf16() -> None:
    plain, layer, scaling = _layer()
    x, upstream = _data(30.0)
    with scaling.measuring():
        exact_y, exact_gradient = _pass(layer, x, upstream)
    assert torch.equal(exact_y, F.linear(x, plain.weight, plain.bias))
    scaling.update(NO)
    y, x_gradient = _pass(layer, x, upstream)
    for found, exact in ((y, exact_y), (x_gradient, exact_gradient)):
        error = (found.double() - exact.double()).norm() / exact.double().norm()
        assert 1e-4 < error < 0.06


def test_evaluation_is_bf16_and_leaves_no_trace() -> None:
    plain, layer, scaling = _layer()
    x, _ = _data()
    layer.eval()
    assert torch.equal(layer(x), F.linear(x, plain.weight, plain.bias))
    assert float(layer.largest_input) == 0.0
    layer.train()
    layer(x)
    assert float(layer.largest_input) == float(x.abs().max())
    scaling.begin()
    assert float(layer.largest_input) == 0.0


@given(
    st.lists(
        st.tuples(st.floats(0.0, 1e6, width=32) | st.sampled_from([math.inf, math.nan]), st.booleans()),
        min_size=1,
        max_size=9,
    ),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_the_scale_follows_the_maxima_of_earlier_steps(
    steps: list[tuple[float, bool]], history: int, margin: int
) -> None:
    """A plain computation beside it: skipped steps and maxima that are not finite included."""
    _, layer, scaling = _layer(history=history, margin=margin)
    kept = [0.0] * history
    for most, skips in steps:
        scaling.begin()
        layer.largest_input.fill_(most)
        layer.largest_gradient.fill_(most)
        scaling.update(YES if skips else NO)
        if not skips:
            kept = [most if math.isfinite(most) else kept[0], *kept[:-1]]
        for name, largest in (("input", 448.0), ("gradient", 57344.0)):
            scale = float(getattr(layer, f"scale_{name}"))
            assert float(getattr(layer, f"inverse_{name}")) == 1.0 / scale
            if max(kept) == 0.0:
                assert scale == 2.0**-margin
                continue
            assert math.frexp(scale)[0] == 0.5
            if max(kept) > 1e-20:
                assert max(kept) * scale * 2.0**margin <= largest < 2.01 * max(kept) * scale * 2.0**margin
    assert scaling.state()["layer"][0].tolist() == kept


def test_weights_are_narrowed_once_a_step_in_both_layouts() -> None:
    plain, layer, scaling = _layer()
    top = float(plain.weight.detach().abs().max())
    assert scaling.state()["layer"][1].tolist() == [top, 0.0, 0.0, 0.0]
    assert torch.equal(layer.narrow_FD.float(), (plain.weight.detach().float() * layer.scale_weight).to(E4M3).float())
    assert torch.equal(layer.narrow_DF.float(), layer.narrow_FD.float().t())
    before, scale = layer.narrow_FD.float(), float(layer.scale_weight)
    with torch.no_grad():
        plain.weight.mul_(8.0)
    scaling.update(NO)  # cast by the scale of what was known: the largest saturate
    assert float(layer.scale_weight) == scale
    assert float(layer.narrow_FD.float().abs().max()) == 448.0
    assert not torch.equal(layer.narrow_FD.float(), before)
    scaling.update(NO)  # now it is known
    assert float(layer.scale_weight) == scale / 8
    assert torch.equal(layer.narrow_FD.float(), before)


def test_state_goes_over_to_the_bits() -> None:
    _, layer, scaling = _layer()
    x, upstream = _data()
    with scaling.measuring():
        _pass(layer, x, upstream)
    scaling.update(NO)
    state = {name: tensor.clone() for name, tensor in scaling.state().items()}
    _, other, others = _layer()
    assert not others.is_measured
    others.load_state(state)
    assert others.is_measured
    assert torch.equal(_pass(layer, x, upstream)[0], _pass(other, x, upstream)[0])
    for strange in ({}, {"layer": torch.ones(3, 7)}):
        others.load_state(strange)  # of another precision, of another length
        assert not others.is_measured
        assert float(others.state()["layer"][0].max()) == 0.0
        assert float(others.state()["layer"][1, 0]) == float(other.weight.detach().abs().max())


@pytest.mark.parametrize("activation", ["gelu_tanh", "swiglu"])
def test_the_layers_of_blocks_take_part_and_no_others(activation: str) -> None:
    config = DecoderConfig.model_validate(
        {"num_layers": 2, "hidden_size": 32, "num_heads": 2, "activation": activation, "feed_forward_size": 64}
    )
    model = build_model(config, vocabulary_size=30, sequence_length=8, seed=0).to(torch.bfloat16)
    before = dict(model.named_parameters())
    state = set(model.state_dict())
    prepare_fp8(model, 16, 0)
    after = dict(model.named_parameters())
    assert list(before) == list(after)
    assert all(before[name] is after[name] for name in before)
    assert set(model.state_dict()) == state
    names = {name for name, module in model.named_modules() if isinstance(module, Fp8Linear)}
    parts = ("attention.qkv", "attention.output", "feed_forward.up", "feed_forward.down")
    assert names == {f"blocks.{index}.{part}" for index in range(2) for part in parts}
    assert fuses_activation(model, torch.device("cuda"), torch.bfloat16) is not None


def test_widths_that_do_not_divide_are_refused() -> None:
    config = DecoderConfig.model_validate({"num_layers": 1, "hidden_size": 24, "num_heads": 2})
    model = build_model(config, vocabulary_size=30, sequence_length=8, seed=0).to(torch.bfloat16)
    with pytest.raises(ConfigError, match=r"multiples of 16. Received: blocks.0.attention.qkv from 24 to 72"):
        prepare_fp8(model, 16, 0)


def test_maxima_by_token_are_those_of_all_tokens() -> None:
    """As many tokens as were announced, and another number: both find the largest, also over several passes."""
    for announced in (32, 5):
        _, layer, scaling = _layer()
        x, upstream = _data()
        most = [0.0, 0.0]
        for factor in (1.0, 4.0, 2.0):
            scaling.expect(announced)
            _pass(layer, x * factor, upstream * factor)
            scaling.collect()
            largest = [float((tensor * factor).abs().max()) for tensor in (x, upstream)]
            most = [max(pair) for pair in zip(most, largest, strict=True)]
            assert [float(layer.largest_input), float(layer.largest_gradient)] == most
        scaling.begin()
        assert [float(layer.largest_input), float(layer.largest_gradient)] == [0.0, 0.0]
