"""Perplexity of texts: one token at a time, with the context that a stride leaves."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_hugging_face import TINY
from torch import nn

import trimtab
from trimtab.data import byte_tokenizer
from trimtab.errors import DataError, UsageError
from trimtab.model import Decoder, init_weights

TOKENIZER = byte_tokenizer()
TEXTS = ["the cat sat on the mat, and so did the dog", "x", "a second text of no great length"]
LENGTH = 8


def decoder() -> Decoder:
    model = Decoder(
        vocabulary_size=TOKENIZER.vocabulary_size,
        max_positions=LENGTH,
        num_layers=1,
        hidden_size=16,
        num_heads=2,
        feed_forward_size=32,
    )
    init_weights(model, standard_deviation=0.5, num_layers=1, seed=2)
    return model


def stream() -> list[int]:
    end = TOKENIZER.end_of_text
    return [end, *(token for text in TEXTS for token in [*TOKENIZER.encode(text), end])]


def plain(model: nn.Module, stride: int) -> float:
    """Each token after the window that it is judged in, by itself."""
    tokens, nats = stream(), 0.0
    for target in range(1, len(tokens)):
        beyond = max(0, target - LENGTH)
        begin = -(-beyond // stride) * stride
        with torch.no_grad():
            logits = model(torch.tensor([tokens[begin:target]])).logits[0, -1].double()
        nats -= float(logits.log_softmax(0)[tokens[target]])
    return math.exp(nats / (len(tokens) - 1))


@pytest.mark.parametrize("stride", [1, 3, LENGTH])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_a_window_at_a_time(stride: int, batch_size: int) -> None:
    model = decoder()
    found = trimtab.calculate_perplexity(
        model, TEXTS, TOKENIZER, sequence_length=LENGTH, stride=stride, batch_size=batch_size
    )
    assert found == pytest.approx(plain(model, stride), rel=1e-5)
    if stride == LENGTH:
        assert found == trimtab.calculate_perplexity(
            model, TEXTS, TOKENIZER, sequence_length=LENGTH, batch_size=batch_size
        )


def test_a_model_of_transformers_as_it_is() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(**{**TINY["gpt2"], "vocab_size": 300})
    model = transformers.AutoModelForCausalLM.from_config(config).eval()

    class Bytes:
        eos_token_id = 256

        def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
            assert not add_special_tokens
            return list(text.encode())

    found = trimtab.calculate_perplexity(model, TEXTS, Bytes(), sequence_length=LENGTH, stride=3)
    assert found == pytest.approx(plain(model, 3), rel=1e-4)


def test_as_it_is_taught() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(**{**TINY["gpt2"], "vocab_size": 300})
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    tokens = torch.randint(0, 300, (4, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens)
    mask[1, 4:] = 0
    labels = tokens.masked_fill(mask == 0, -100)
    with torch.no_grad():  # transformers shifts the labels by itself, and takes the mean of what counts
        expected = float(torch.exp(model(input_ids=tokens, attention_mask=mask, labels=labels).loss))
    batch = {"input_ids": tokens, "attention_mask": mask}
    for given in (batch, batch | {"labels": labels}):
        assert trimtab.calculate_perplexity(model, [given], "cpu") == pytest.approx(expected, rel=1e-5)
    with pytest.raises(UsageError, match="Received: GPT2LMHeadModel, tokens"):
        trimtab.calculate_perplexity(model, [{"tokens": tokens}])
    with pytest.raises(UsageError, match="pairs of tokens and targets"):
        trimtab.calculate_perplexity(decoder(), [batch])
    with pytest.raises(UsageError, match="Received: Tensor"):
        trimtab.calculate_perplexity(model, [tokens])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="and the model is on cpu"):
        trimtab.calculate_perplexity(model, [batch], torch.device("meta"))
    with pytest.raises(UsageError, match="given twice"):
        trimtab.calculate_perplexity(model, [batch], "cpu", device="cpu")


def test_what_is_refused() -> None:
    model = decoder()
    with pytest.raises(UsageError, match="need their tokenizer"):
        trimtab.calculate_perplexity(model, TEXTS, sequence_length=8)
    with pytest.raises(UsageError, match="from 1 to sequence_length 8"):
        trimtab.calculate_perplexity(model, TEXTS, TOKENIZER, sequence_length=8, stride=9)
    with pytest.raises(DataError, match="nothing to evaluate"):
        trimtab.calculate_perplexity(model, [], TOKENIZER, sequence_length=8)
