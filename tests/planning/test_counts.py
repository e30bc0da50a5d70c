"""What is counted from a configuration is what the model has that is built from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.config import Config, list_presets, load_config
from trimtab.errors import ConfigError, UsageError
from trimtab.model import Decoder, Encoder, build_model, flops_per_token, parameter_counts
from trimtab.planning import count_model
from trimtab.signals import TargetFacts, outputs_of

SMALL = {"name": "x", "num_layers": 2, "hidden_size": 32, "num_heads": 4}


def agree(config: Config) -> None:
    counts = count_model(config, classes=3)
    targets = TargetFacts(classes=("a", "b", "c"))
    model = build_model(
        config.model,
        vocabulary_size=counts.vocabulary_size,
        sequence_length=config.longest_sequence,
        outputs=outputs_of(config.task, targets, counts.vocabulary_size),
        seed=0,
    )
    built = parameter_counts(model)
    assert counts.parameters == built["groups"]
    assert counts.total_parameters == built["total"]
    if isinstance(model, Decoder | Encoder):
        length = config.data.sequence_length
        for causal in (True, False):
            flops = flops_per_token(model, length, causal=causal)
            square = not causal
            assert counts.forward_flops(square=square) / length == pytest.approx(flops["forward"], rel=1e-12)
            assert counts.training_flops(square=square) / length == pytest.approx(flops["training"], rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["decoder", "encoder", "encoder_decoder"]),
    task=st.sampled_from(["masked_lm", "classification", "token_classification", "regression"]),
    kv=st.sampled_from([None, 1, 2]),
    activation=st.sampled_from(["gelu", "swiglu", "relu_squared"]),
    inner=st.sampled_from([None, 48]),
    norm=st.sampled_from(["layer_norm", "rms_norm"]),
    placement=st.sampled_from(["pre", "post"]),
    positions=st.sampled_from(["learned", "sinusoidal", "rotary"]),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_any_shape_is_counted_as_it_is_built(
    name: str, task: str, kv: int | None, activation: str, inner: int | None, norm: str, placement: str, positions: str,
    flags: tuple[bool, bool, bool],
) -> None:  # fmt: skip
    bias, tied, normalized = flags
    tasks = {"decoder": {"name": "causal_lm"}, "encoder_decoder": {"name": "seq2seq", "target_length": 24}}
    source = {"name": "jsonl", "path": "rows.jsonl"}
    objective = {"name": "mse"} if name == "encoder" and task == "regression" else {"name": "cross_entropy"}
    config = Config.model_validate(
        {
            "task": tasks.get(name, {"name": task}),
            "objective": objective,
            "data": {"sequence_length": 16, "source": source, "tokenizer": {"name": "bpe", "vocabulary_size": 300}},
            "model": SMALL
            | {
                "name": name,
                "num_kv_heads": kv,
                "activation": activation,
                "feed_forward_size": inner,
                "norm": {"name": norm, "placement": placement},
                "positions": {"name": positions},
                "bias": bias,
                "tied_embeddings": tied,
                "qk_norm": normalized,
            },
        }
    )
    agree(config)


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in list_presets()
        if n not in ("gpt2", "gpt2-medium", "llama-small", "pretrain-large", "finetune", "finetune-small-data")
    ],
)
def test_presets_are_counted_as_they_are_built(name: str) -> None:
    agree(load_config(name, environment={}))


@pytest.mark.parametrize("projection", [None, 24])
@pytest.mark.parametrize("learned", [False, True])
def test_both_texts_of_a_pair_pass_through_one_model(projection: int | None, learned: bool) -> None:
    def counted(task: dict[str, Any], objective: dict[str, Any]) -> Any:
        source = {"name": "jsonl", "path": "rows.jsonl"}
        data = {"sequence_length": 16, "source": source, "tokenizer": {"name": "bytes"}}
        values = {"task": task, "objective": objective, "data": data, "model": SMALL | {"name": "encoder"}}
        return Config.model_validate(values)

    task = {"name": "contrastive", "projection": projection}
    config = counted(task, {"name": "info_nce", "learn_temperature": learned})
    pair, one = count_model(config), count_model(counted({"name": "masked_lm"}, {"name": "cross_entropy"}))
    outputs = outputs_of(config.task, TargetFacts(), pair.vocabulary_size, config.objective)
    model = build_model(config.model, vocabulary_size=pair.vocabulary_size, sequence_length=16, seed=0, outputs=outputs)
    assert pair.total_parameters == sum(parameter.numel() for parameter in model.parameters())
    head = 2.0 * 2.0 * config.model.hidden_size * (projection or 0)  # type: ignore[union-attr]
    of_tokens = 2.0 * 16 * config.model.hidden_size * one.vocabulary_size  # type: ignore[union-attr]
    assert pair.forward_flops(square=True) - head == pytest.approx(2.0 * (one.forward_flops(square=True) - of_tokens))


def test_gpt2_is_known() -> None:
    assert count_model(load_config("gpt2", environment={})).total_parameters == 124_439_808
    assert count_model(load_config("gpt2-medium", environment={})).total_parameters == 354_823_168


def test_a_tokenizer_is_read_from_its_file(tmp_path: Path) -> None:
    state: dict[str, Any] = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 4, "content": "<|end|>"}]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    settings = f"data.tokenizer={{name: file, path: {tmp_path}}}"
    assert count_model(load_config(None, [settings], environment={})).vocabulary_size == 5
    (tmp_path / "tokenizer.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"data.tokenizer.path: no tokenizer.json"):
        count_model(load_config(None, [settings], environment={}))


def test_a_model_from_outside_is_refused() -> None:
    with pytest.raises(UsageError, match="is not counted without building it"):
        count_model(load_config(None, ["model={name: custom, target: a:b}"], environment={}))
