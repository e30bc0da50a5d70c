"""Our decoder as an architecture of transformers: the same logits, or a reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from trimtab.config import DecoderConfig, load_config
from trimtab.errors import ConfigError
from trimtab.model import Decoder, build_model
from trimtab.model.correspondence import architecture_of, converted, described

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


def model_of(**settings: Any) -> tuple[Decoder, Any]:
    shape = {"name": "decoder", "num_layers": 2, "hidden_size": 32, "num_heads": 4, **settings}
    for name, default in (("positions", "rotary"), ("norm", "layer_norm")):
        if name in shape:
            shape[name] = {"name": default, **shape[name]}
    section = load_config({"model": shape, "data": {"sequence_length": 24}}, environment={}).model
    model = build_model(section, vocabulary_size=61, sequence_length=24, seed=0)
    assert isinstance(model, Decoder)
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
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**words), dtype=torch.float32
    )
    positions = model.position_embedding
    table = positions.weight if isinstance(positions, nn.Embedding) else getattr(positions, "table", None)
    theirs.load_state_dict(converted(section, dict(model.named_parameters()), table), strict=True)
    tokens_BT = torch.randint(0, 61, (3, 24), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = model(tokens_BT).logits
        found = theirs.eval()(input_ids=tokens_BT).logits
    assert float((ours - found).abs().max()) < 1e-5 * float(ours.abs().max())
    tied = theirs.get_input_embeddings().weight.data_ptr() == theirs.get_output_embeddings().weight.data_ptr()
    assert tied == section.tied_embeddings


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
        ({"name": "encoder", "positions": {"name": "learned"}}, "model.name encoder: BERT and its kin normalize"),
    ],
)
def test_what_has_none_says_why(settings: dict[str, Any], message: str) -> None:
    if settings.get("name") == "encoder":
        section = load_config({"model": settings, "task": {"name": "masked_lm"}}, environment={}).model
    else:
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
