from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.errors import ConfigError
from trimtab.model import Decoder, init_weights

SHAPE: dict[str, Any] = {
    "vocabulary_size": 23,
    "max_positions": 12,
    "num_layers": 2,
    "hidden_size": 16,
    "num_heads": 4,
    "feed_forward_size": 32,
}


def decoder(**changes: Any) -> Decoder:
    model = Decoder(**SHAPE | changes)
    init_weights(model, standard_deviation=0.2, num_layers=2, seed=1)
    return model


VARIANTS = {
    "rotary": decoder(),
    "learned, post": decoder(positions="learned", norm_placement="post"),
    "grouped, swiglu": decoder(num_kv_heads=2, activation="swiglu", norm="rms_norm", qk_norm=True),
    "documents": decoder(document_mask=True),
}


@settings(deadline=None, max_examples=40)
@given(
    variant=st.sampled_from(sorted(VARIANTS)),
    tokens=st.lists(st.integers(0, 22), min_size=2, max_size=12),
    data=st.data(),
)
def test_no_position_sees_what_comes_later(variant: str, tokens: list[int], data: st.DataObject) -> None:
    model = VARIANTS[variant]
    place = data.draw(st.integers(1, len(tokens) - 1))
    changed = tokens[:place] + data.draw(
        st.lists(st.integers(0, 22), min_size=len(tokens) - place, max_size=len(tokens) - place)
    )
    with torch.no_grad():
        before, after = model(torch.tensor([tokens, changed])).logits
    torch.testing.assert_close(before[:place], after[:place], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("positions", ["rotary", "learned", "sinusoidal"])
def test_packed_documents_are_as_if_apart(positions: str) -> None:
    model = decoder(document_mask=True, positions=positions)
    documents = [torch.tensor([3, 1, 4, 1]), torch.tensor([5]), torch.tensor([9, 2, 6, 5, 3])]
    packed = torch.cat(documents)[None]
    lengths = [len(document) for document in documents]
    ids = torch.repeat_interleave(torch.tensor([7, 8, 9]), torch.tensor(lengths))[None].int()
    places = torch.cat([torch.arange(length) for length in lengths])[None].int()
    with torch.no_grad():
        together = model(packed, places, ids).logits[0].split(lengths)
        for document, logits_TV in zip(documents, together, strict=True):
            torch.testing.assert_close(model(document[None]).logits[0], logits_TV, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(model(packed).logits[0, 4:], torch.cat(together)[4:])


def test_padding_gives_finite_logits() -> None:
    ids = torch.tensor([[0, 0, -1, -1], [-1, -1, -1, -1]], dtype=torch.int32)
    zeros = torch.zeros(2, 4, dtype=torch.int64)
    assert decoder(document_mask=True)(zeros, zeros.int(), ids).logits.isfinite().all()


def test_documents_and_positions_count_only_with_the_mask() -> None:
    model, tokens_BT = decoder(), torch.randint(23, (2, 6))
    other = model(tokens_BT, torch.zeros(2, 6).int(), torch.arange(12).view(2, 6).int())
    assert torch.equal(model(tokens_BT).logits, other.logits)


def test_too_many_tokens_name_both_numbers() -> None:
    with pytest.raises(ConfigError, match=r"13 tokens.*12 positions"):
        decoder()(torch.zeros(1, 13, dtype=torch.int64))


def test_tied_head_is_the_embedding_also_in_a_copy() -> None:
    model = copy.deepcopy(decoder())
    assert model.head.weight is model.embedding.weight
    assert "head.weight" not in dict(model.named_parameters())
    assert "head.weight" in dict(decoder(tied_embeddings=False).named_parameters())
    model(torch.tensor([[1, 2]])).logits.sum().backward()
    assert model.embedding.weight.grad is not None
    assert model.embedding.weight.grad[5].abs().sum() > 0


def test_activation_scale_of_every_block() -> None:
    model, outputs = decoder(norm_placement="post"), []
    for block in model.blocks:
        block.register_forward_hook(lambda _module, _inputs, output: outputs.append(output[0]))
    tokens_BT = torch.randint(23, (3, 7))
    assert not model(tokens_BT).signals
    outputs.clear()
    model.measure_activations = True
    signals = model(tokens_BT).signals
    assert list(signals) == ["layer/blocks.0/activation_rms", "layer/blocks.1/activation_rms"]
    for value, output in zip(signals.values(), outputs, strict=True):
        assert value.shape == ()
        assert not value.requires_grad
        torch.testing.assert_close(value, output.detach().square().mean().sqrt())


def test_the_whole_forward_is_one_graph() -> None:
    model = decoder(num_kv_heads=2, qk_norm=True, residual_dropout=0.1, attention_dropout=0.1)
    model.measure_activations = True
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    tokens_BT = torch.randint(23, (2, 6))
    compiled(tokens_BT).logits.sum().backward()
    model.eval()
    output, expected = compiled(tokens_BT), model(tokens_BT)
    torch.testing.assert_close(output.logits, expected.logits)
    torch.testing.assert_close(dict(output.signals), dict(expected.signals))


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_autocast_keeps_the_residual_stream_in_fp32(dropout: float) -> None:
    model = decoder(num_kv_heads=2, qk_norm=True, norm="rms_norm", attention_dropout=dropout)
    tokens_BT = torch.randint(23, (2, 6))
    with torch.autocast("cpu", torch.bfloat16):
        output = model(tokens_BT)
        logits_BTV = output.logits
    assert output.features.dtype == torch.float32
    assert logits_BTV.dtype == torch.bfloat16
    if not dropout:
        torch.testing.assert_close(logits_BTV.float(), model(tokens_BT).logits, rtol=0.05, atol=0.05)


def test_weights_may_be_bfloat16() -> None:
    model = decoder(num_kv_heads=2, qk_norm=True, positions="rotary").bfloat16()
    assert model(torch.randint(23, (2, 6))).logits.dtype == torch.bfloat16
