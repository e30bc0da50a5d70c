"""Our decoder or encoder as an architecture of transformers: the same logits, or a reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from trimtab.config import DecoderConfig, load_config
from trimtab.errors import ConfigError
from trimtab.model import Decoder, Encoder, build_model
from trimtab.model.correspondence import architecture_of, converted, described
from trimtab.model.pretrained import CLASSES
from trimtab.signals import Outputs

transformers = pytest.importorskip("transformers")

LLAMA: dict[str, Any] = {"norm": {"name": "rms_norm"}, "activation": "swiglu"}
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("gpt2", {"positions": {"name": "learned"}, "bias": True, "activation": "gelu_tanh"}),
    ("gpt2", {"positions": {"name": "learned"}, "tied_embeddings": False, "feed_forward_size": 80}),
    ("gpt2", {"positions": {"name": "sinusoidal"}, "activation": "relu_squared", "norm": {"epsilon": 1e-3}}),
    ("llama", LLAMA),
    ("llama", {**LLAMA, "bias": True, "num_kv_heads": 2, "tied_embeddings": False, "positions": {"base": 500.0}}),
    ("qwen3", {**LLAMA, "qk_norm": True, "num_kv_heads": 1}),
    ("arcee", {"norm": {"name": "rms_norm"}, "activation": "relu_squared"}),
    ("arcee", {"norm": {"name": "rms_norm"}, "bias": True, "num_kv_heads": 2}),
    ("starcoder2", {}),
    ("starcoder2", {"bias": True, "num_kv_heads": 2, "activation": "relu_squared", "tied_embeddings": False}),
]


def model_of(outputs: Outputs | None = None, **settings: Any) -> tuple[Decoder | Encoder, Any]:
    shape = {"name": "decoder", "num_layers": 2, "hidden_size": 32, "num_heads": 4, **settings}
    for name, default in (("positions", "rotary"), ("norm", "layer_norm")):
        if name in shape:
            shape[name] = {"name": default, **shape[name]}
    task = "masked_lm" if shape["name"] == "encoder" else "causal_lm"
    pooled = outputs is not None and outputs.pooled
    settings = {"model": shape, "task": {"name": "classification" if pooled else task}, "data": {"sequence_length": 24}}
    if pooled:
        settings["data"] |= {"source": {"name": "jsonl", "path": "rows.jsonl"}}
    section = load_config(settings, environment={}).model
    model = build_model(section, vocabulary_size=61, sequence_length=24, seed=0, outputs=outputs)
    assert isinstance(model, Decoder | Encoder)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # norms, biases and scales of nothing but ones and zeros would hide a wrong place
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) / 5)
    return model.eval(), section


@pytest.mark.parametrize(("architecture", "settings"), SETTINGS)
def test_logits_are_equal(architecture: str, settings: dict[str, Any]) -> None:
    model, section = model_of(**settings)
    assert architecture_of(section) == architecture
    words = described(section, vocabulary_size=61, max_positions=24, end_of_text=0, padding=None)
    theirs = theirs_of("causal_lm", words, converted(section, dict(model.named_parameters()), table_of(model)))
    tokens_BT = torch.randint(0, 61, (3, 24), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = model(tokens_BT).logits
        found = theirs(input_ids=tokens_BT).logits
    assert float((ours - found).abs().max()) < 1e-5 * float(ours.abs().max())
    tied = theirs.get_input_embeddings().weight.data_ptr() == theirs.get_output_embeddings().weight.data_ptr()
    assert tied == section.tied_embeddings


def theirs_of(task: str, words: dict[str, Any], weights: dict[str, torch.Tensor]) -> Any:
    config = transformers.AutoConfig.for_model(**words)
    theirs = getattr(transformers, CLASSES[task]).from_config(config, dtype=torch.float32)
    theirs.load_state_dict(weights, strict=True)
    return theirs.eval()


def table_of(model: Decoder | Encoder) -> torch.Tensor | None:
    positions = model.position_embedding
    return positions.weight if isinstance(positions, nn.Embedding) else getattr(positions, "table", None)


ENCODERS: list[dict[str, Any]] = [
    {},
    {**LLAMA, "num_kv_heads": 2},
    {"bias": True, "activation": "swiglu", "positions": {"base": 500.0}},
    {"norm": {"name": "rms_norm"}, "activation": "relu_squared", "bias": True},
    {"bias": True, "activation": "gelu_tanh", "norm": {"epsilon": 1e-3}},
]
DECODERS: list[dict[str, Any]] = [{}, {"positions": {"name": "learned"}, "bias": True}, {**LLAMA, "qk_norm": True}]
KINDS: dict[str, Outputs] = {
    "masked_lm": Outputs(61, of_tokens=True, task="masked_lm"),
    "token_classification": Outputs(5, task="token_classification"),
    "classification": Outputs(5, pooled=True, task="classification"),
}


@pytest.mark.parametrize(
    ("settings", "task"),
    [({"name": "encoder", **settings}, task) for settings in ENCODERS for task in KINDS]
    + [({"name": "encoder", "tied_embeddings": False}, "masked_lm")]
    + [(settings, "classification") for settings in ({"name": "encoder", **LLAMA, "pooling": "first"}, *DECODERS)],
)
def test_heads_for_classes_and_holes_say_the_same_of_padded_texts(settings: dict[str, Any], task: str) -> None:
    outputs = KINDS[task]
    model, section = model_of(outputs, **settings)
    if section.norm.name == "rms_norm" and section.name == "decoder":
        model.head.bias.data.zero_()  # there is no place for it
    words = described(section, vocabulary_size=61, max_positions=24, end_of_text=0, padding=0)
    words |= {} if outputs.of_tokens else {"num_labels": outputs.size}
    weights = converted(section, dict(model.named_parameters()), table_of(model), outputs)
    theirs = theirs_of(task, words, weights)
    tokens_BT = torch.randint(1, 61, (3, 24), generator=torch.Generator().manual_seed(1))
    documents_BT = torch.zeros_like(tokens_BT)
    for row, length in enumerate((24, 11, 1)):
        tokens_BT[row, length:], documents_BT[row, length:] = 0, -1
    with torch.no_grad():
        ours = model(tokens_BT, None, documents_BT).logits
        found = theirs(input_ids=tokens_BT, attention_mask=(documents_BT >= 0).long()).logits
    if not outputs.pooled:
        ours, found = ours[documents_BT >= 0], found[documents_BT >= 0]
    assert ours.shape == found.shape
    assert float((ours - found).abs().max()) < 1e-5 * float(ours.abs().max())


def test_heads_that_have_no_equal_say_why() -> None:
    pooled = KINDS["classification"]
    for settings, outputs, message in (
        (LLAMA, pooled, r"head.bias after rms_norm.*\nhint: model.norm.name=layer_norm, or model.freeze="),
        ({"pooling": "mean"}, pooled, "model.pooling mean of a decoder"),
        ({"name": "encoder"}, Outputs(17, pooled=True), "17 classes of whole texts, more than half"),
        ({}, Outputs(40, pooled=True), "biases of 40 classes"),
    ):
        model, section = model_of(outputs, **settings)
        with pytest.raises(ConfigError, match=message):
            converted(section, dict(model.named_parameters()), None, outputs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": {"placement": "post"}}, r"model.norm.placement post: transformers has no .*\nhint: .*llama for rms"),
        ({"positions": {"name": "learned"}, "num_kv_heads": 2}, "model.positions learned .*, grouped heads"),
        ({"positions": {"name": "learned"}, **LLAMA}, "model.positions learned with model.norm rms_norm"),
        ({"activation": "swiglu"}, "model.norm layer_norm with model.activation swiglu and rotary"),
        ({"norm": {"name": "rms_norm"}, "qk_norm": True}, "model.norm rms_norm with model.activation gelu"),
        ({**LLAMA, "qk_norm": True, "bias": True}, "model.qk_norm with .* model.bias True"),
        ({"qk_norm": True}, "and qk_norm"),
        ({"name": "encoder", "positions": {"name": "learned"}}, "model.positions learned in an encoder: BERT"),
        ({"name": "encoder", "norm": {"placement": "post"}}, "model.norm.placement post, as BERT normalizes"),
        ({"name": "encoder", "qk_norm": True}, "model.qk_norm in an encoder"),
    ],
)
def test_what_has_none_says_why(settings: dict[str, Any], message: str) -> None:
    section = model_of(**settings)[1]
    with pytest.raises(ConfigError, match=message):
        architecture_of(section)


@pytest.mark.parametrize(
    ("preset", "architecture"), [("pretrain-large", "qwen3"), ("llama-small", "llama"), ("large-data", "starcoder2")]
)
def test_presets_that_are_to_leave_the_house_can(preset: str, architecture: str) -> None:
    section = load_config(preset, environment={}).model
    assert isinstance(section, DecoderConfig)
    assert architecture_of(section) == architecture
