from __future__ import annotations

import pytest
import torch

from trimtab.model import Attention, set_dropout_factor
from trimtab.model.masks import causal_mask


@pytest.mark.parametrize("masked", [False, True])
def test_weights_with_a_dropout_of_zero_are_those_of_the_fused_kernel(masked: bool) -> None:
    torch.manual_seed(0)
    attention = Attention(24, num_heads=6, num_kv_heads=2, qk_norm=False, bias=True, dropout=0.3)
    set_dropout_factor(attention, 0.0)
    x_BTD = torch.randn(2, 7, 24)
    mask = None
    if masked:
        mask = (causal_mask(7, x_BTD.device) & (torch.arange(7) // 3 == torch.arange(7)[:, None] // 3))[None, None]
    explicit = attention(x_BTD, None, mask)
    torch.testing.assert_close(explicit, attention.eval()(x_BTD, None, mask))


def test_attention_dropout_drops() -> None:
    torch.manual_seed(0)
    attention = Attention(24, num_heads=6, num_kv_heads=6, qk_norm=False, bias=False, dropout=0.5)
    x_BTD = torch.randn(1, 5, 24).expand(4000, -1, -1)
    dropped_BTD = attention(x_BTD, None, None)
    assert not torch.allclose(dropped_BTD[0], dropped_BTD[1])
    whole_TD = attention.eval()(x_BTD[:1], None, None)[0]
    torch.testing.assert_close(dropped_BTD.mean(0), whole_TD, atol=0.03, rtol=0)


def test_projections_hold_queries_keys_and_values_of_the_groups() -> None:
    attention = Attention(24, num_heads=6, num_kv_heads=2, qk_norm=True, bias=True, dropout=0.0)
    assert attention.qkv.weight.shape == ((6 + 2 + 2) * 4, 24)
    assert attention.query_norm is not None
    assert attention.query_norm.weight.shape == (4,)
    assert attention.output.bias is not None
