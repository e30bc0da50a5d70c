"""A decoder with a head for whole texts: what it reads, and that padding changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trimtab.config import DecoderConfig
from trimtab.model import Decoder, build_model, flops_per_token
from trimtab.signals import Outputs

CLASSES = Outputs(4, pooled=True)


def decoder(outputs: Outputs | None = CLASSES, **more: Any) -> Decoder:
    shape = {"num_layers": 2, "hidden_size": 24, "num_heads": 2, "initialization": {"standard_deviation": 0.3}}
    config = DecoderConfig.model_validate({**shape, **more})
    model = build_model(config, vocabulary_size=31, sequence_length=16, seed=1, outputs=outputs)
    assert isinstance(model, Decoder)
    return model.double().eval()


def tokens(rows: int, length: int) -> torch.Tensor:
    return torch.randint(0, 31, (rows, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "more", [{}, {"pooling": "mean"}, {"document_mask": True}, {"positions": {"name": "learned"}, "bias": True}]
)
def test_padding_changes_nothing_whatever_it_holds(more: dict[str, Any]) -> None:
    model, plain = decoder(**more), tokens(1, 9)
    alone = model(plain).logits
    positions = torch.arange(16).expand(2, -1)
    documents = torch.full((2, 16), -1, dtype=torch.int32)
    documents[0, :9] = 0
    for filling in (0, 30):
        wide = torch.full((2, 16), filling)
        wide[0, :9] = plain
        padded = model(wide, positions, documents).logits
        assert bool(padded.isfinite().all())
        torch.testing.assert_close(padded[:1], alone, rtol=1e-5, atol=1e-6)  # rotation and means are in fp32


def test_the_last_token_or_the_mean_of_all() -> None:
    everywhere = decoder(Outputs(4), pooling="mean")
    last, mean = decoder(), decoder(pooling="mean")
    for one in (last, mean):
        one.load_state_dict(everywhere.state_dict())
    text = tokens(2, 7)
    each = everywhere(text).logits
    torch.testing.assert_close(last(text).logits, each[:, -1])
    torch.testing.assert_close(mean(text).logits, each.mean(1), rtol=1e-5, atol=1e-5)
    changed = text.clone()
    changed[:, 0] = (changed[:, 0] + 1) % 31
    assert not torch.allclose(last(changed).logits, last(text).logits)


def test_its_head_has_a_bias_and_works_once_a_text() -> None:
    model = decoder()
    assert model.head.bias is not None
    assert model.head.weight is not model.embedding.weight
    assert decoder(None).head.weight is not None
    assert decoder(None).head.bias is None
    everywhere, pooled = flops_per_token(decoder(Outputs(4)), 16), flops_per_token(model, 16)
    assert everywhere["forward"] - pooled["forward"] == pytest.approx(2 * 24 * 4 * (1 - 1 / 16))


def test_dropout_before_the_head_is_that_of_what_was_pooled() -> None:
    text = tokens(1, 7)
    model, plain = decoder(dropout={"head": 0.5}), decoder()
    torch.testing.assert_close(model(text).logits, plain(text).logits, rtol=0, atol=0)
    torch.manual_seed(0)
    features, whole = model.train()(text).features, plain(text).features
    kept = features != 0
    assert 4 <= int(kept.sum()) <= 20  # of 24, each with probability 1/2: outside once in 4000 seeds
    torch.testing.assert_close(features[kept], 2 * whole[kept])
