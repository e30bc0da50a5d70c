from __future__ import annotations

import torch

from trimtab.model.norms import build_norm


def test_layer_norm_formula() -> None:
    x = torch.randn(3, 5, 8) * 3 + 1
    norm = build_norm("layer_norm", 8, 1e-3, bias=True)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2.0)
        norm.bias.uniform_(-1.0, 1.0)
    centred = x - x.mean(-1, keepdim=True)
    expected = centred / (centred.square().mean(-1, keepdim=True) + 1e-3).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm(x), expected)


def test_rms_norm_formula() -> None:
    x = torch.randn(3, 5, 8) * 3 + 1
    norm = build_norm("rms_norm", 8, 1e-3, bias=True)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2.0)
    torch.testing.assert_close(norm(x), x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * norm.weight)


def test_a_bias_only_where_asked() -> None:
    assert [name for name, _ in build_norm("layer_norm", 8, 1e-5, bias=False).named_parameters()] == ["weight"]
    assert [name for name, _ in build_norm("rms_norm", 8, 1e-5, bias=True).named_parameters()] == ["weight"]
