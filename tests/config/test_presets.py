from __future__ import annotations

from collections.abc import Mapping

import pytest

from trimtab.config import (
    BpeTokenizer,
    Config,
    DecoderConfig,
    LayerNorm,
    RmsNorm,
    TransformerShape,
    list_presets,
    load_config,
)
from trimtab.config.presets import preset_text
from trimtab.doctor.lint import lint
from trimtab.errors import ConfigError


def num_parameters(config: Config) -> int:
    """Weights of embeddings, attention and feed-forward; norms and biases are too few to matter."""
    model, tokenizer = config.model, config.data.tokenizer
    assert isinstance(model, TransformerShape)
    assert isinstance(tokenizer, BpeTokenizer)
    width = model.hidden_size
    tables = tokenizer.vocabulary_size * (1 if model.tied_embeddings else 2)
    if model.positions.name == "learned":
        tables += config.data.sequence_length
    keys_and_values = 2 * (model.num_kv_heads or model.num_heads) * model.head_size
    projections = 3 if model.activation == "swiglu" else 2
    block = width * (2 * width + keys_and_values + projections * model.resolved_feed_forward_size)
    return tables * width + model.num_layers * block


SIZES: Mapping[str, float] = {
    "encoder-1m": 1e6,
    "gpt-1m": 1e6,
    "gpt-10m": 10e6,
    "gpt-30m": 30e6,
    "gpt2": 124e6,
    "gpt2-medium": 350e6,
    "llama-small": 125e6,
}


SITUATIONS = {
    "classification",
    "starter-stack",
    "pretrain-small",
    "pretrain-large",
    "finetune",
    "finetune-small-data",
    "small-data",
    "large-data",
    "translation",
    "regression",
}


def test_all_presets_are_known() -> None:
    assert set(list_presets()) == {"demo", "demo-small", *SIZES, *SITUATIONS}


@pytest.mark.parametrize("name", SIZES)
def test_preset_has_the_size_that_its_name_says(name: str) -> None:
    assert num_parameters(load_config(name, environment={})) == pytest.approx(SIZES[name], rel=0.06)


@pytest.mark.parametrize("name", list_presets())
def test_preset(name: str) -> None:
    config = load_config(name, environment={})
    assert config.name == name
    description = list_presets()[name]
    assert preset_text(name).startswith(f"# {description}\n")
    assert 20 < len(description) <= 110
    assert [found for found in lint(config) if found.severity != "info"] == []


def test_gpt2_is_gpt2() -> None:
    config = load_config("gpt2", environment={})
    model = config.model
    assert isinstance(model, DecoderConfig)
    assert (model.num_layers, model.hidden_size, model.num_heads) == (12, 768, 12)
    assert (model.positions.name, model.bias, model.activation) == ("learned", True, "gelu_tanh")
    assert model.norm == LayerNorm()
    assert model.tied_embeddings
    assert config.data.sequence_length == 1024
    assert isinstance(config.data.tokenizer, BpeTokenizer)
    assert config.data.tokenizer.vocabulary_size == 50_257
    assert config.training.precision.name == "bf16"
    assert config.tokens_per_step == 491_520


def test_llama_small_is_llama() -> None:
    model = load_config("llama-small", environment={}).model
    assert isinstance(model, DecoderConfig)
    assert isinstance(model.norm, RmsNorm)
    assert (model.positions.name, model.activation, model.num_kv_heads) == ("rotary", "swiglu", 4)
    assert not model.tied_embeddings
    assert not model.bias


def test_unknown_preset() -> None:
    with pytest.raises(ConfigError, match="did you mean 'gpt-10m'"):
        preset_text("gpt10m")
