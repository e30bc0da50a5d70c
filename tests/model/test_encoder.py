"""Encoder and encoder-decoder: what each position sees, and what it must not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trimtab.config import EncoderConfig, EncoderDecoderConfig
from trimtab.model import Encoder, EncoderDecoder, build_model, flops_per_token, parameter_counts
from trimtab.signals import Outputs

CLASSES = Outputs(4, pooled=True)


def shape(**more: Any) -> dict[str, Any]:
    return {"num_layers": 2, "hidden_size": 24, "num_heads": 2, "initialization": {"standard_deviation": 0.3}, **more}


def encoder(outputs: Outputs | None = CLASSES, **more: Any) -> Encoder:
    config = EncoderConfig.model_validate(shape(**more))
    model = build_model(config, vocabulary_size=31, sequence_length=16, seed=1, outputs=outputs)
    assert isinstance(model, Encoder)
    return model.double().eval()


def pairs(**more: Any) -> EncoderDecoder:
    config = EncoderDecoderConfig.model_validate(shape(**more))
    model = build_model(config, vocabulary_size=31, sequence_length=16, seed=1)
    assert isinstance(model, EncoderDecoder)
    return model.double().eval()


def tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 31, (rows, length), generator=torch.Generator().manual_seed(seed))


def ids(*lengths: int, width: int) -> torch.Tensor:
    found = torch.full((len(lengths), width), -1, dtype=torch.int32)
    for row, length in enumerate(lengths):
        found[row, :length] = row
    return found


SHAPES: list[dict[str, Any]] = [
    {},
    {"pooling": "first", "positions": {"name": "learned"}},
    {"norm": {"name": "rms_norm", "placement": "post"}, "positions": {"name": "sinusoidal"}},
    {"num_kv_heads": 1, "qk_norm": True, "bias": True, "activation": "swiglu"},
]


@pytest.mark.parametrize("more", SHAPES)
@pytest.mark.parametrize("outputs", [CLASSES, Outputs(4), None])
def test_padding_changes_nothing_whatever_it_holds(more: dict[str, Any], outputs: Outputs | None) -> None:
    model, plain = encoder(outputs, **more), tokens(1, 9)
    positions = torch.arange(16)[None]
    alone = model(plain, positions[:, :9], ids(9, width=9)).logits
    for filling in (0, 30):
        wide = torch.full((2, 16), filling)
        wide[0, :9] = plain
        padded = model(wide, positions.expand(2, -1), ids(9, 0, width=16)).logits
        assert padded.isfinite().all()
        same = padded[:1] if padded.ndim == 2 else padded[:1, :9]
        # Rotation is computed in fp32.
        torch.testing.assert_close(same, alone, rtol=1e-5, atol=1e-6)


def test_packed_texts_are_as_if_apart() -> None:
    model, one, other = encoder(None), tokens(1, 6, 1), tokens(1, 8, 2)
    both = torch.cat((one, other), 1)
    positions = torch.cat((torch.arange(6), torch.arange(8)))[None]
    documents = torch.tensor([[0] * 6 + [1] * 8], dtype=torch.int32)
    packed = model(both, positions, documents).logits
    torch.testing.assert_close(packed[:, :6], model(one).logits, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(packed[:, 6:], model(other).logits, rtol=1e-12, atol=1e-12)


def test_every_position_sees_both_sides() -> None:
    model = encoder(None)
    embedded: list[torch.Tensor] = []
    model.embedding.register_forward_hook(lambda _, __, value: embedded.append(value.requires_grad_()) or value)
    logits = model(tokens(1, 7)).logits
    (gradient,) = torch.autograd.grad(logits[0, 3].sum(), embedded[0])
    assert (gradient[0].abs().sum(-1) > 0).all()


def test_the_mean_is_that_of_the_real_positions() -> None:
    by_token, pooled = encoder(Outputs(4)), encoder(CLASSES)
    pooled.load_state_dict(by_token.state_dict())
    documents = ids(5, 11, width=11)
    text, positions = tokens(2, 11), torch.arange(11).expand(2, -1)
    each = by_token(text, positions, documents).logits
    expected = torch.stack((each[0, :5].mean(0), each[1].mean(0)))
    # The sum is made in fp32.
    torch.testing.assert_close(pooled(text, positions, documents).logits, expected, rtol=1e-5, atol=1e-5)


def test_heads() -> None:
    holes = encoder(None)
    assert holes.head.weight is holes.embedding.weight
    assert holes.head.bias is None
    assert encoder(CLASSES).head.bias is not None
    counts = parameter_counts(encoder(CLASSES))
    assert counts["groups"]["head"] == 24 * 4 + 4
    per_token = flops_per_token(encoder(CLASSES), 16)
    weights = counts["groups"]["attention"] + counts["groups"]["feed_forward"]
    assert per_token["forward"] == pytest.approx(2 * weights + 2 * 24 * 4 / 16 + 2 * 4 * 24 * 16)


def test_classes_are_no_tokens_though_they_are_as_many() -> None:
    model = encoder(Outputs(31))
    assert model.head.weight is not model.embedding.weight
    assert model.head.bias is not None


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("training", [False, True])
def test_a_row_of_padding_alone_gives_numbers(dropout: float, training: bool) -> None:
    """As the last micro-batch of a step may have: its gradient counts nothing, but must not be NaN."""
    model = pairs(dropout={"attention": dropout}).train(training)
    documents = torch.full((2, 8), -1, dtype=torch.int32)
    documents[0] = 0
    logits = model(tokens(2, 8), documents, tokens(2, 4, 3)).logits
    logits[0].sum().backward()
    assert bool(logits.isfinite().all())
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_dropout_before_the_head_is_its_own() -> None:
    model = encoder(CLASSES, dropout={"head": 0.5}).train()
    text = tokens(64, 5)
    torch.manual_seed(0)
    bias = model.head.bias
    mean = (torch.stack([model(text).logits for _ in range(200)]).mean(0) - bias).flatten()
    plain = (model.eval()(text).logits - bias).flatten()
    # How large the mean is in units of what it must be.
    assert float((mean @ plain / (plain @ plain)).detach()) == pytest.approx(1.0, rel=0.02)
    assert not torch.equal(model.train()(text).logits, model(text).logits)


@pytest.mark.parametrize("more", [{}, {"norm": {"name": "layer_norm", "placement": "post"}, "bias": True}])
def test_the_decoder_sees_the_first_text_and_nothing_that_follows(more: dict[str, Any]) -> None:
    model, first, second = pairs(**more), tokens(1, 9), tokens(1, 7, 5)
    logits = model(first, ids(9, width=9), second).logits
    for place in range(7):
        changed = second.clone()
        changed[0, place] = (changed[0, place] + 1) % 31
        other = model(first, ids(9, width=9), changed).logits
        torch.testing.assert_close(other[:, :place], logits[:, :place], rtol=1e-12, atol=1e-12)
        assert not torch.allclose(other[:, place], logits[:, place])
    for place in range(9):
        changed = first.clone()
        changed[0, place] = (changed[0, place] + 1) % 31
        assert not torch.allclose(model(changed, ids(9, width=9), second).logits[:, 0], logits[:, 0])


def test_padding_of_either_text_changes_nothing() -> None:
    model, first, second = pairs(), tokens(1, 6), tokens(1, 5, 5)
    alone = model(first, None, second).logits
    wide = torch.full((2, 16), 30)
    wide[0, :6] = first
    read = torch.zeros(2, 9, dtype=torch.int64)
    read[0, :5] = second
    padded = model(wide, ids(6, 16, width=16), read).logits
    torch.testing.assert_close(padded[:1, :5], alone, rtol=1e-12, atol=1e-12)
    assert padded.isfinite().all()


def test_one_embedding_for_both_and_signals_of_both() -> None:
    model = pairs().float()
    assert model.head.weight is model.encoder.embedding.weight is model.decoder.embedding.weight
    model.measure_activations = True
    output = model(tokens(2, 6), None, tokens(2, 5))
    assert tuple(output.signals) == model.signal_names
    assert "layer/decoder.blocks.1/activation_rms" in model.signal_names


def test_dropout_in_cross_attention_keeps_the_expectation() -> None:
    model = pairs(dropout={"attention": 0.3}).train()
    first, second = tokens(1, 6), tokens(1, 4, 3)
    torch.manual_seed(0)
    memory, _ = model.eval().encode(first, None)
    block = next(iter(model.decoder.all_blocks))
    assert block.memory_attention is not None
    x = model.decoder.embedding(second)
    expected = block.memory_attention.eval()(x, memory, None)
    many = block.memory_attention.train()(x.expand(4000, -1, -1), memory.expand(4000, -1, -1), None).mean(0)
    torch.testing.assert_close(many, expected[0], rtol=0.1, atol=0.05)
