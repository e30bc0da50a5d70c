"""Counts of a pass are those of a hand calculation; times and rates agree with each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import trimtab
from trimtab.errors import UsageError
from trimtab.model import Decoder, EncoderDecoder, flops_per_token


def decoder() -> Decoder:
    return Decoder(
        vocabulary_size=50, max_positions=16, num_layers=2, hidden_size=16, num_heads=2, feed_forward_size=64
    )


def test_a_decoder_by_hand() -> None:
    model = decoder().train()
    found = trimtab.calculate_model_efficiency(
        model, sequence_length=16, batch_size=3, repeats=4, peak_flops_per_second=1e12
    )
    # Per token and layer: qkv 16·48, output 16·16, feed-forward 2·16·64, attention 2·16·16; the head 16·50.
    products = 2 * (2 * (16 * 48 + 16 * 16 + 2 * 16 * 64 + 2 * 16 * 16) + 16 * 50)
    assert found.flops == products * 16 * 3
    assert found.flops_per_token == flops_per_token(model, 16, causal=False)["forward"]
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.parameter_bytes == 4 * found.parameters
    assert found.tokens_per_second == pytest.approx(48 / found.latency_seconds)
    assert found.model_flops_utilization == pytest.approx(found.flops / found.latency_seconds / 1e12)
    assert found.latency_p90_seconds >= found.latency_seconds > 0
    assert found.memory_bytes > found.parameter_bytes
    assert model.training
    assert set(found.to_json()) >= {"flops", "latency_seconds", "memory_bytes"}


def test_as_it_is_taught() -> None:
    model = decoder()
    whole = trimtab.calculate_model_efficiency(model, (3, 16), "cpu", repeats=1, peak_flops_per_second=1.0)
    assert (whole.batch_size, whole.sequence_length) == (3, 16)
    assert trimtab.calculate_model_efficiency(model, 16, repeats=1, peak_flops_per_second=1.0).flops == whole.flops / 3
    for arguments, said in [
        (((1, 3, 224, 224), "cpu"), "input_size is (texts, tokens)"),
        (((1, 16), "meta"), "and the model is on cpu"),
        (((1, 16), "tpu9"), "device must be the name of one"),
        ((), "says how large a pass is"),
    ]:
        with pytest.raises(UsageError) as caught:
            trimtab.calculate_model_efficiency(model, *arguments)  # type: ignore[arg-type]
        assert said in str(caught.value)


def test_other_models_and_inputs() -> None:
    pairs = EncoderDecoder(
        vocabulary_size=50, max_positions=16, num_layers=1, hidden_size=16, num_heads=2, feed_forward_size=32
    )
    assert trimtab.calculate_model_efficiency(pairs, sequence_length=8, repeats=1, peak_flops_per_second=1.0).flops > 0
    layer = nn.Linear(4, 6)
    inputs = {"input": torch.ones(5, 4)}
    found = trimtab.calculate_model_efficiency(
        layer, sequence_length=5, inputs=inputs, repeats=1, precision="bf16", peak_flops_per_second=1.0
    )
    assert found.flops == 2 * 5 * 4 * 6
    layer.weight.requires_grad_(False)
    assert (
        trimtab.calculate_model_efficiency(layer, sequence_length=5, inputs=inputs, repeats=1).trainable_parameters == 6
    )


@pytest.mark.parametrize(
    "weights, asked, told",
    [
        (torch.float32, "fp32", "fp32"),
        (torch.bfloat16, "fp32", "bf16"),
        (torch.float32, "bf16", "bf16"),
    ],
)
def test_the_precision_is_what_is_computed_in(
    weights: torch.dtype, asked: Any, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without autocast it is that of the weights, and the peak is that of it."""
    peaks = {"fp32": 1e9, "bf16": 2e9}
    monkeypatch.setattr("trimtab.evaluation.efficiency._peak", lambda device, precision: peaks[precision])
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 6)).to(weights)
    found = trimtab.calculate_model_efficiency(model, sequence_length=5, repeats=1, precision=asked)
    assert found.precision == told
    assert found.peak_flops_per_second == peaks[told]


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        trimtab.calculate_model_efficiency(decoder(), sequence_length=0)
