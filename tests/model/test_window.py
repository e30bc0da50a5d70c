"""The sliding window against a plain masked softmax in float64; packed as apart; what is counted of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.config import DecoderConfig, EncoderConfig, EncoderDecoderConfig, load_config
from trimtab.errors import ConfigError
from trimtab.model import Attention, build_model, flops_per_token
from trimtab.model.correspondence import architecture_of
from trimtab.model.masks import window_mask
from trimtab.model.trunk import Trunk
from trimtab.planning import mean_keys
from trimtab.signals import Outputs

KINDS: dict[str, Any] = {"decoder": DecoderConfig, "encoder": EncoderConfig, "encoder_decoder": EncoderDecoderConfig}


def built(kind: str, window: int | None, **more: Any) -> Any:
    shape = {"num_layers": 2, "hidden_size": 24, "num_heads": 4, "initialization": {"standard_deviation": 0.3}, **more}
    config = KINDS[kind].model_validate({**shape, "window": window})
    outputs = Outputs(3) if kind == "encoder" else None
    return build_model(config, vocabulary_size=31, sequence_length=16, seed=1, outputs=outputs).double().eval()


def tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 31, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("num_kv_heads", [4, 2])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [1, 3, 8])
@pytest.mark.parametrize("dropout", [0.0, 1e-9])
def test_attention_is_a_softmax_over_the_window(num_kv_heads: int, causal: bool, window: int, dropout: float) -> None:
    """With a rate that drops nothing the written-out way is taken, whose gradients are compared, too."""
    torch.manual_seed(0)
    layer = Attention(24, 4, num_kv_heads, False, True, dropout).double()
    x = torch.randn(2, 9, 24, dtype=torch.float64, requires_grad=True)
    mask = window_mask(9, window, x.device)
    mask = mask.tril() if causal else mask
    y = layer(x, None, mask, causal)
    assert torch.equal(mask, torch.tensor([[_seen(i, j, window, causal) for j in range(9)] for i in range(9)]))

    q, k, v = layer.qkv(x).unflatten(-1, (-1, 6)).split((4, num_kv_heads, num_kv_heads), dim=2)
    expected = torch.zeros(2, 9, 4, 6, dtype=torch.float64)
    for head in range(4):
        of = head // (4 // num_kv_heads)
        for i in range(9):
            near = [j for j in range(9) if _seen(i, j, window, causal)]
            scores = torch.stack([(q[:, i, head] * k[:, j, of]).sum(-1) for j in near], 1) / math.sqrt(6)
            shares = scores.exp() / scores.exp().sum(1, keepdim=True)
            expected = expected.index_put(
                (torch.arange(2), torch.tensor(i), torch.tensor(head)),
                sum((shares[:, n, None] * v[:, j, of] for n, j in enumerate(near)), torch.zeros(())),
            )
    reference = layer.output(expected.flatten(2))
    tolerance = 1e-10 if dropout == 0.0 else 1e-5  # scores are in fp32 there
    torch.testing.assert_close(y, reference, rtol=tolerance, atol=tolerance)
    ours, theirs = (torch.autograd.grad(one.pow(3).sum(), x, retain_graph=True)[0] for one in (y, reference))
    torch.testing.assert_close(ours, theirs, rtol=10 * tolerance, atol=10 * tolerance)


def _seen(i: int, j: int, window: int, causal: bool) -> bool:
    return (0 <= i - j < window) if causal else abs(i - j) < window


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_a_model_reaches_as_far_as_its_layers_do(kind: str) -> None:
    """Two layers with a window of 3 reach 4 positions: what is farther has no influence at all, what is near has."""
    model, read = built(kind, 3), tokens(1, 16)
    other = read.clone()
    other[0, 8] = (other[0, 8] + 1) % 31
    with torch.no_grad():
        differs = (model(read).features != model(other).features).any(-1)[0]
    reached = range(8, 13) if kind == "decoder" else range(4, 13)
    assert differs.nonzero().flatten().tolist() == list(reached)


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_over_everything_is_none(kind: str) -> None:
    model, plain = built(kind, 16), built(kind, None)
    arguments: tuple[Any, ...] = (tokens(2, 16),)
    if kind == "encoder_decoder":
        arguments = (tokens(2, 16), torch.zeros(2, 16, dtype=torch.int32), tokens(2, 9))
    assert torch.equal(model(*arguments).features, plain(*arguments).features)
    narrow = built(kind, 4)
    assert not torch.allclose(narrow(*arguments).features, plain(*arguments).features)


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_packed_documents_are_as_they_are_apart(kind: str, positions: str) -> None:
    more = {"document_mask": True} if kind == "decoder" else {}
    model = built(kind, 4, positions={"name": positions}, **more)
    first, second = tokens(1, 7, 1), tokens(1, 9, 2)
    ids = torch.tensor([[0] * 7 + [1] * 9], dtype=torch.int32)
    places = torch.cat([torch.arange(7), torch.arange(9)])[None]
    packed = model(torch.cat([first, second], 1), places, ids).features
    torch.testing.assert_close(packed[:, :7], model(first).features)
    torch.testing.assert_close(packed[:, 7:], model(second).features)


@pytest.mark.parametrize("kind", ["encoder", "encoder_decoder"])
def test_padding_changes_nothing(kind: str) -> None:
    model, read = built(kind, 3), tokens(1, 10)
    ids = torch.zeros(1, 10, dtype=torch.int32)
    padded = torch.cat([read, torch.full((1, 6), 7)], 1)
    padded_ids = torch.cat([ids, torch.full((1, 6), -1, dtype=torch.int32)], 1)
    if kind == "encoder":
        whole, plain = model(padded, None, padded_ids).features[:, :10], model(read, None, ids).features
    else:
        whole, plain = (model(a, b, tokens(1, 8)).features for a, b in ((padded, padded_ids), (read, ids)))
    assert whole.isfinite().all()
    torch.testing.assert_close(whole, plain)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 40), window=st.integers(1, 50), causal=st.booleans())
def test_keys_are_counted_as_they_are_met(length: int, window: int, causal: bool) -> None:
    met = sum(_seen(i, j, window, causal) for i in range(length) for j in range(length)) / length
    assert mean_keys(length, causal=causal, window=window) == pytest.approx(met)


def test_a_window_costs_less_arithmetic_and_is_not_exported() -> None:
    narrow, plain = flops_per_token(built("decoder", 4), 16), flops_per_token(built("decoder", None), 16)
    assert narrow["attention"] / plain["attention"] == pytest.approx(mean_keys(16, causal=True, window=4) / 8.5)
    with pytest.raises(ConfigError, match=r"model\.window"):
        architecture_of(DecoderConfig(window=4))
    assert isinstance(built("decoder", 4), Trunk)


def test_a_window_that_reaches_over_everything_is_refused() -> None:
    settings = {"model": {"name": "decoder", "window": 64}, "data": {"sequence_length": 64}}
    with pytest.raises(ConfigError, match="reaches over whole sequences"):
        load_config(settings, environment={})
    settings["model"]["window"] = 63
    assert load_config(settings, environment={}).model.window == 63  # type: ignore[union-attr]
