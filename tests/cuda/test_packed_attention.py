"""The gradient of queries, keys and values written in place: what only a GPU with cuDNN's package can show."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from trimtab.config import DecoderConfig
from trimtab.model import build_model, packs_attention
from trimtab.model.packed_attention import frontend, packed_attention

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
    pytest.mark.skipif(torch.cuda.is_available() and frontend() is None, reason="needs nvidia-cudnn-frontend"),
]


def _plain(packed_BTNK: Tensor) -> Tensor:
    q, k, v = (part.transpose(1, 2) for part in packed_BTNK.chunk(3, dim=2))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("heads", "size", "length"), [(4, 64, 128), (3, 128, 96), (2, 16, 40), (5, 64, 1000)])
def test_it_is_plain_attention(dtype: torch.dtype, heads: int, size: int, length: int) -> None:
    torch.manual_seed(0)
    packed = torch.randn(3, length, 3 * heads, size, device="cuda", dtype=dtype, requires_grad=True)
    upstream = torch.randn(3, length, heads, size, device="cuda", dtype=dtype)
    wide = packed.detach().double().requires_grad_()
    expected = _plain(wide)
    expected.backward(upstream.double())
    given, _ = packed_attention(packed)
    given.backward(upstream)
    assert wide.grad is not None
    assert packed.grad is not None
    assert packed.grad.is_contiguous()
    limit = 0.02 if dtype == torch.bfloat16 else 0.004
    assert (given.double() - expected).abs().max() < limit * expected.abs().max()
    error = (packed.grad.double() - wide.grad).norm() / wide.grad.norm()
    assert error < limit / 2


def test_an_upstream_gradient_in_another_layout() -> None:
    packed = torch.randn(2, 64, 6, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    upstream = torch.randn(2, 2, 64, 64, device="cuda", dtype=torch.bfloat16).transpose(1, 2)
    (first,) = torch.autograd.grad(packed_attention(packed)[0], packed, upstream)
    (second,) = torch.autograd.grad(packed_attention(packed)[0], packed, upstream.contiguous())
    torch.testing.assert_close(first, second, rtol=0.02, atol=0.002)  # sums in another order


def _model(**others: Any) -> torch.nn.Module:
    shape = {
        "num_layers": 2,
        "hidden_size": 128,
        "num_heads": 2,
        "positions": {"name": "learned"},
        "norm": {"name": "layer_norm"},
    }
    config = DecoderConfig.model_validate({"name": "decoder", **shape, **others})
    return build_model(config, vocabulary_size=64, sequence_length=64, seed=0).to("cuda", torch.bfloat16)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_model_with_it_has_the_same_gradients(compiled: bool) -> None:
    gradients = []
    for packs in (False, True):
        model = _model()
        if packs:
            assert packs_attention(model, torch.device("cuda")) is None
        if compiled:
            model.compile(dynamic=False)
        tokens = torch.arange(2 * 64, device="cuda").view(2, 64) % 64
        model(tokens_BT=tokens).features.float().square().sum().backward()
        gradients.append({name: p.grad.float() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert gradients[0]
    for name, expected in gradients[0].items():
        difference = (gradients[1][name] - expected).norm()
        assert difference <= 0.03 * expected.norm() + 1e-3, name


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ({"positions": {"name": "rotary"}}, "rotary"),
        ({"num_kv_heads": 1}, "as many heads"),
        ({"qk_norm": True}, "plain"),
    ],
)
def test_where_it_does_not_apply_it_says_so(others: dict[str, Any], reason: str) -> None:
    assert reason in str(packs_attention(_model(**others), torch.device("cuda")))
