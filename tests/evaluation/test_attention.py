"""Attention as a picture: whose it is, what its tokens are, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from torch import nn

from trimtab.config import DecoderConfig, EncoderConfig
from trimtab.data import byte_tokenizer
from trimtab.errors import UsageError
from trimtab.evaluation.attention import MOST_TOKENS, AttentionView, visualize_attention
from trimtab.model import EncoderDecoder, build_model, wrap_model
from trimtab.signals import Outputs, SpecialTokens

TEXT = "$5 or\n$6"


def decoder() -> nn.Module:
    config = {"num_layers": 3, "hidden_size": 16, "num_heads": 4, "dropout": {"residual": 0.5}}
    return build_model(DecoderConfig.model_validate(config), vocabulary_size=257, sequence_length=32, seed=3)


def test_all_heads_of_the_last_layer_of_ours(tmp_path: Path) -> None:
    model = decoder().train()
    view = visualize_attention(model, TEXT, byte_tokenizer())
    assert model.training
    assert view.layers == ("blocks.0.attention", "blocks.1.attention", "blocks.2.attention")
    assert (view.layer, view.name, view.heads) == (2, "blocks.2.attention", (0, 1, 2, 3))
    assert view.tokens == view.keys == tuple(TEXT)
    assert view.weights.shape == view.seen.shape == (4, 8, 8)
    np.testing.assert_allclose(view.weights.sum(-1), 1.0, rtol=1e-6)
    assert np.array_equal(view.seen[0], np.tri(8, dtype=bool))
    for name in ("picture.png", "picture.svg"):
        view.save(tmp_path / name)
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"
    drawn = (tmp_path / "picture.svg").read_text()
    assert drawn.count("<!-- head ") == 4  # a title each
    assert view._repr_png_()[:4] == b"\x89PNG"


def test_one_head_is_the_same_as_among_all() -> None:
    model, tokenizer = decoder(), byte_tokenizer()
    whole = visualize_attention(model, TEXT, tokenizer, 1)
    one = visualize_attention(model, TEXT, tokenizer, layer="blocks.1.attention", head=2)
    assert one.heads == (2,)
    assert np.array_equal(one.weights[0], whole.weights[2])
    assert (one.entropy[0], one.first[0], one.largest_logit[0]) == (
        whole.entropy[2],
        whole.first[2],
        whole.largest_logit[2],
    )
    told = json.loads(json.dumps(one.to_json()))
    assert told["heads"] == [2]
    np.testing.assert_allclose(told["weights"], one.weights, atol=1e-6)
    axes = one.figure.axes
    assert [label.get_text() for label in axes[0].get_xticklabels()] == ["$", "5", "·", "o", "r", "↵", "$", "6"]
    assert axes[0].get_title().startswith("head 2 · entropy ")


def test_a_long_text_is_labelled_here_and_there() -> None:
    model = build_model(
        DecoderConfig.model_validate({"num_layers": 1, "hidden_size": 16, "num_heads": 2}),
        vocabulary_size=257,
        sequence_length=200,
        seed=0,
    )
    figure = visualize_attention(model, "ab" * 90, byte_tokenizer()).figure
    assert len(figure.axes[0].get_xticklabels()) == 30


def test_an_encoder_reads_its_text_in_a_frame() -> None:
    config = EncoderConfig.model_validate({"name": "encoder", "num_layers": 1, "hidden_size": 16, "num_heads": 2})
    outputs = Outputs(2, pooled=True, task="classification", classes=("no", "yes"))
    model = build_model(config, vocabulary_size=257, sequence_length=32, outputs=outputs, seed=0)
    view = visualize_attention(model, "abc", byte_tokenizer())
    assert view.tokens == ("<|endoftext|>", "a", "b", "c")
    assert view.seen.all()


def test_a_decoder_looks_at_itself_and_at_what_was_read() -> None:
    shape: Any = {"vocabulary_size": 257, "max_positions": 16, "num_layers": 1, "hidden_size": 16, "num_heads": 2}
    model = EncoderDecoder(feed_forward_size=32, **shape)
    found = [visualize_attention(model, "abc", byte_tokenizer(), layer, answer="xy") for layer in range(3)]
    end = "<|endoftext|>"
    assert [(view.name, view.tokens, view.keys) for view in found] == [
        ("encoder.blocks.0.attention", (end, "a", "b", "c"), (end, "a", "b", "c")),
        ("decoder.blocks.0.attention", (end, "x", "y"), (end, "x", "y")),
        ("decoder.blocks.0.memory_attention", (end, "x", "y"), (end, "a", "b", "c")),
    ]


@pytest.mark.parametrize("wrapped", [False, True])
def test_models_and_tokenizers_of_transformers(wrapped: bool) -> None:
    transformers = pytest.importorskip("transformers")
    words = {word: index for index, word in enumerate(["[UNK]", "[PAD]", "the", "cat", "sat"])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]", eos_token="[PAD]"
    )
    config = transformers.GPT2Config(
        vocab_size=5, n_layer=2, n_embd=16, n_head=2, n_positions=16, bos_token_id=1, eos_token_id=1
    )
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config).eval()
    wanted = transformers.GPT2LMHeadModel(config)
    wanted.set_attn_implementation("eager")
    wanted.load_state_dict(model.state_dict())
    used: nn.Module = model
    if wrapped:
        used = wrap_model(model, 5, Outputs(5, of_tokens=True), longest_sequence=8, special=SpecialTokens(1, 1, 1))
    view = visualize_attention(used, "the cat sat", tokenizer, 0, 1)
    assert view.tokens == ("the", "cat", "sat")
    with torch.no_grad():
        expected = wanted.eval()(torch.tensor([[2, 3, 4]]), output_attentions=True).attentions[0][0, 1]
    np.testing.assert_allclose(view.weights[0], expected.numpy(), atol=1e-6)
    assert visualize_attention(used, "the cat sat", inner, 0, 1).tokens == view.tokens


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"layer": 3}, "no layer 3; it has: 0 blocks.0.attention, 1 blocks.1"),
        ({"layer": -4}, "no layer -4"),
        ({"layer": "blocks.9"}, "no layer 'blocks.9'"),
        ({"head": 4}, "heads 0 to 3. Received: head 4"),
        ({"head": -1}, "Received: head -1"),
        ({"text": ""}, "there is no text"),
        ({"text": "a" * (MOST_TOKENS + 1)}, "1,025 tokens, and 1,024"),
        ({"model": nn.Embedding(257, 4)}, "Embedding was not seen to attend"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        visualize_attention(**{"model": decoder(), "text": TEXT, "tokenizer": byte_tokenizer(), **changes})


def test_a_picture_with_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.png, \.svg, \.pdf"):
        visualize_attention(decoder(), TEXT, byte_tokenizer()).save(tmp_path / "picture.jpg")


def test_the_maps_of_a_long_text_stand_in_a_grid_that_fits_a_screen() -> None:
    tokens = tuple(f"word{place}" for place in range(64))
    for heads, grid in ((1, (1, 1)), (4, (2, 2)), (8, (3, 3)), (16, (4, 4))):
        weights = np.full((heads, 64, 64), 1 / 64, np.float32)
        none = (0.0,) * heads
        seen = np.ones_like(weights, bool)
        shown = tuple(range(heads))
        view = AttentionView(3, tuple("abcd"), shown, tokens, tokens, weights, seen, none, none, none, none)
        figure = view.figure
        width, height = figure.get_size_inches() * 130
        assert max(width, height) < 2000
        axes = figure.axes[0]
        assert axes.get_subplotspec().get_gridspec().get_geometry() == grid
        assert 10 < len(axes.get_xticks()) < 60
    assert view.place == "layer 3 (the last; of 4, counted from 0)"
