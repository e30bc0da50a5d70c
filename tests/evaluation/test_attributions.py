"""Integrated gradients: complete, and equal to a plain sum over the path, for our models and those of transformers."""

from __future__ import annotations

import pytest
import torch
from tiny_hugging_face import TINY
from torch import nn

import trimtab
from trimtab.data import byte_tokenizer
from trimtab.errors import UsageError
from trimtab.model import Decoder, Encoder, EncoderDecoder, HuggingFaceModel, init_weights
from trimtab.signals import Outputs

pytest.importorskip("captum")
TOKENIZER = byte_tokenizer()
TEXT = "the cat sat"
SHAPE = {
    "vocabulary_size": 257,
    "max_positions": 32,
    "num_layers": 1,
    "hidden_size": 16,
    "num_heads": 2,
    "feed_forward_size": 32,
}


def encoder() -> Encoder:
    model = Encoder(outputs=Outputs(3, pooled=True), **SHAPE)  # type: ignore[arg-type]
    init_weights(model, standard_deviation=0.4, num_layers=1, seed=0)
    return model


def test_it_is_the_integral_of_the_gradient_along_the_path() -> None:
    model = encoder()
    found = trimtab.attribute_tokens(model, TOKENIZER, TEXT, sequence_length=32, target=1, steps=200)
    ours = torch.tensor([[256, *TEXT.encode()]])
    blank = torch.tensor([[256] * ours.shape[1]])
    embedded, base = model.embedding(ours).detach(), model.embedding(blank).detach()
    total, points = torch.zeros_like(embedded), 400
    embedding = model.embedding
    for point in range(points):

        class Fixed(nn.Module):
            def __init__(self, values: torch.Tensor) -> None:
                super().__init__()
                self.values = values

            def forward(self, tokens: torch.Tensor) -> torch.Tensor:
                return self.values

        path = (base + (point + 0.5) / points * (embedded - base)).requires_grad_()
        model.embedding = Fixed(path)  # type: ignore[assignment]
        model(ours).logits[0, 1].backward()
        assert path.grad is not None
        total += path.grad
    model.embedding = embedding
    plain = (total / points * (embedded - base))[0].sum(-1)
    assert found.scores == pytest.approx(plain.tolist(), abs=2e-3)
    assert found.scores[0] == pytest.approx(0.0, abs=1e-7)  # what begins a text is the same on all of the path
    assert found.tokens == ("<|endoftext|>", *TEXT)
    assert abs(found.gap) < 1e-3
    assert found.value == pytest.approx(float(model(ours).logits[0, 1].detach()), rel=1e-5)


def test_parameters_and_modes_are_as_before() -> None:
    model = encoder().train()
    model.head.bias.requires_grad_(False)
    found = trimtab.attribute_tokens(model, TOKENIZER, TEXT, sequence_length=32)
    assert found.target == int(model.eval()(torch.tensor([[256, *TEXT.encode()]])).logits.argmax())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [name for name, one in model.named_parameters() if not one.requires_grad] == ["head.bias"]


def test_a_decoder_explains_its_next_token() -> None:
    model = Decoder(**SHAPE)  # type: ignore[arg-type]
    init_weights(model, standard_deviation=0.4, num_layers=1, seed=0)
    found = trimtab.attribute_tokens(model, TOKENIZER, TEXT, sequence_length=32, target=ord("e"), steps=128)
    assert abs(found.gap) < 1e-2 * max(1.0, abs(found.value - found.baseline))


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_models_of_transformers(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(**{**TINY[name], "vocab_size": 300, "num_labels": 3, "pad_token_id": 0})
    module = transformers.AutoModelForSequenceClassification.from_config(config)
    model = HuggingFaceModel(module, "classification", padding=0)
    found = trimtab.attribute_tokens(model, TOKENIZER, TEXT, sequence_length=32, target=2, steps=128)
    assert abs(found.gap) < 0.02 * max(0.1, abs(found.value - found.baseline))
    assert sum(found.scores) == pytest.approx(found.value - found.baseline - found.gap, abs=1e-6)


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match="the text is empty"):
        trimtab.attribute_tokens(encoder(), TOKENIZER, "", sequence_length=32)
    with pytest.raises(UsageError, match="from 0 to 2"):
        trimtab.attribute_tokens(encoder(), TOKENIZER, TEXT, sequence_length=32, target=3)
    pairs = EncoderDecoder(**SHAPE)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="seq2seq"):
        trimtab.attribute_tokens(pairs, TOKENIZER, TEXT, sequence_length=32)
