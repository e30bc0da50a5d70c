"""Options without effect: refused where the user set them, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trimtab.config import Config, dump_config, effective, flatten, list_presets, load_config
from trimtab.config.effect import IDLE, idle_keys
from trimtab.config.keys import keys
from trimtab.errors import ConfigError


def refused(source: Any, *overrides: str, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(source, overrides, environment=environment or {})
    return str(caught.value)


ROWS = "data.source={name: jsonl, path: rows.jsonl}"
SWITCHED_OFF = [
    ("objective.spread=all", ["objective.label_smoothing=0.0"]),
    ("embedding.cutout.kind=span", ["embedding.cutout.rate=0.0"]),
    ("gradients.max_skipped=20", ["gradients.skip_non_finite=false"]),
    ("gradients.noise.power=0.55", ["gradients.noise.scale=0.0"]),
    ("recovery.rollback.budget=3", ["recovery.spikes.name=report"]),
    ("recovery.rollback.slow_steps=100", ["recovery.spikes.name=rollback", "recovery.rollback.factor=1.0"]),
    ("data.max_bad=100", ["data.on_bad=stop"]),
    ("data.validation_fraction=0.05", ["data.validation_source={name: text, path: held-out}"]),
    ("evaluation.samples.prompts=['']", ["evaluation.samples.max_tokens=0"]),
    ("evaluation.samples.max_tokens=96", ["evaluation.samples.prompts=[]"]),
    ("evaluation.samples.top_k=50", ["evaluation.samples.temperature=0.0"]),
    ("evaluation.samples.seeds=2", ["evaluation.samples.temperature=0.0"]),
    ("evaluation.samples.seeds=2", ["evaluation.samples.prompts=[]"]),
    ("objective.chunks=8", ["training.device=cpu"]),
    ("objective.fused=on", ["task.name=classification", "model.name=encoder", ROWS]),
    ("objective.chunks=8", ["task.name=token_classification", "model.name=encoder", ROWS]),
    ("objective.fused=on", ["training.device=cuda", "training.precision.name=fp16"]),
    ("objective.chunks=8", ["training.device=cuda", "training.precision.name=fp16"]),
    ("task.bucketing=64", ["task.name=classification", "model.name=encoder", ROWS, "data.shuffle=false"]),
    ("optimizer.nesterov=true", ["optimizer.name=sgd", "optimizer.momentum=0.0"]),
    (
        "optimizer_switch.to.nesterov=true",
        ["optimizer_switch.at=0.5", "optimizer_switch.to.name=sgd", "optimizer_switch.to.momentum=0.0"],
    ),
    (
        "optimizer_switch.to.decay.target=0.5",
        ["optimizer_switch.at=0.5", "optimizer_switch.to.name=adamw", "optimizer_switch.to.weight_decay=0.0"],
    ),
    ("schedule.start=0.04", ["schedule.name=one_cycle", "schedule.warmup=0"]),
    ("schedule.start=0.04", ["schedule.name=one_cycle", "schedule.warmup=1"]),
    ("logging.examine.which=all", ["logging.examine.at_evaluations=false"]),
    ("logging.examine.sequences=4", ["logging.examine.at_evaluations=false"]),
    ("logging.capture.values=100", []),
    ("logging.capture.megabytes=100", []),
    ("logging.capture.layers=[head]", ["training.steps=90"]),
    ("logging.examine.apart=500", ["logging.examine.at_evaluations=false", "logging.examine.every=10"]),
    ("optimizer.decay.norms=false", ["optimizer.weight_decay=0.0"]),
    ("optimizer.decay.biases=false", []),
    ("averaging.decay=0.999", ["averaging.name=ema", "averaging.half_life=50"]),
    ("logging.adaptive.around=5", ["logging.adaptive.name=bands", "logging.layers=false"]),
    ("schedule.shape=linear", ["schedule.name=wsd", "schedule.decay=0"]),
    ("schedule.shape=linear", ["schedule.name=wsd", "schedule.decay='0 epochs'"]),
]


@pytest.mark.parametrize("option,switches", SWITCHED_OFF)
def test_an_option_without_effect_is_refused_even_at_its_default(option: str, switches: list[str]) -> None:
    key, _, value = option.partition("=")
    message = refused(None, option, *switches)
    assert f"override: {key}: has no effect: " in message
    assert "hint: leave it out, or " in message
    variable = f"TRIMTAB_{key.upper().replace('.', '__')}"
    layers = {name.upper().replace(".", "__"): text for name, _, text in (s.partition("=") for s in switches)}
    environment = {variable: value, **{f"TRIMTAB_{name}": text for name, text in layers.items()}}
    assert f"environment {variable}: {key}: has no effect" in refused(None, environment=environment)


def test_the_place_in_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("objective:\n  spread: others\n")
    assert f"{path}:2: objective.spread: has no effect" in refused(path)
    assert "python: objective.spread: has no effect" in refused({"objective": {"spread": "others"}})


def test_what_a_higher_layer_switches_off_need_not_be_taken_out_below(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("evaluation: {samples: {prompts: [class], temperature: 0.5}}\n")
    config = load_config(path, ["evaluation.samples.max_tokens=0"], environment={})
    assert config.evaluation.samples.max_tokens == 0
    load_config("demo", ["evaluation.samples.max_tokens=0"], environment={})
    load_config("demo", ["optimizer.weight_decay=0.0"], environment={})


@pytest.mark.parametrize("name", list_presets())
def test_what_is_written_out_loads_again_and_differs_in_nothing(name: str, tmp_path: Path) -> None:
    config = load_config(name, ["optimizer.weight_decay=0.0", "evaluation.samples.max_tokens=0"], environment={})
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    again = load_config(path, environment={})
    assert effective(again) == effective(config)
    assert "# norms: without effect: it says what weight decay acts on" in path.read_text()


def test_a_run_s_own_configuration_is_run_again_for_fewer_steps_or_without_examinations(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(load_config(None, ["logging.examine.which=[gradients]"], environment={})))
    short = load_config(path, ["training.steps=50"], environment={})
    assert not short.logging.examine.is_due_within(50)
    assert short.logging.examine.which == ("gradients",)
    assert not idle_keys(short).keys() & {"logging.examine.which", "logging.examine.sequences"}
    load_config(path, ["logging.examine.at_evaluations=false"], environment={})


def test_the_table_names_keys_that_there_are() -> None:
    for idle in IDLE:
        assert {*idle.keys, idle.switch} <= set(keys())
        assert idle.switch.rpartition(".")[2] in idle.reason + idle.remedy


def test_nothing_is_idle_where_all_is_switched_on() -> None:
    config = load_config(
        None,
        [
            "objective.label_smoothing=0.1",
            "objective.spread=others",
            "embedding.cutout.rate=0.1",
            "model.bias=true",
            "schedule.name=wsd",
            "gradients.noise.scale=0.01",
            "recovery={spikes: {name: rollback}, rollback: {factor: 0.5}}",
            "logging.noise_scale.every=10",
            "training.accumulation=2",
            "data.on_bad=skip",
            "logging.capture.layers=[head]",
            "model.dropout.layer=0.1",
        ],
        environment={},
    )
    assert set(idle_keys(config)) == {"model.pooling"}  # a decoder of language has no vector of a text
    assert effective(config) == flatten(config)
    assert set(idle_keys(Config())) == {
        "embedding.cutout.kind",
        "model.pooling",
        "model.dropout.layer_ramp",
        "model.dropout.layer_unit",
        "model.dropout.layer_per",
        "objective.spread",
        "optimizer.decay.biases",
        "gradients.noise.power",
        "logging.capture.values",
        "logging.capture.megabytes",
        "recovery.rollback.budget",
        "recovery.rollback.margin",
        "recovery.rollback.factor",
        "recovery.rollback.slow_steps",
        "logging.noise_scale.memory",
        "data.max_bad",
    }


def test_arguments_that_the_step_sets_are_refused() -> None:
    target = "optimizer={name: custom, target: 'torch.optim:SGD', arguments: {weight_decay: 0.1}}"
    assert "arguments.weight_decay has no effect" in refused(None, target)


def test_fp16_needs_steps_that_may_be_skipped() -> None:
    message = refused(None, "training={device: cuda, precision: {name: fp16}}", "gradients.skip_non_finite=false")
    assert "finds its loss scale by skipping" in message


def test_a_rollback_at_skipped_steps_needs_steps_that_may_be_skipped() -> None:
    overrides = ("recovery.non_finite=rollback", "gradients.skip_non_finite=false")
    assert "goes by skipped steps, and gradients.skip_non_finite is false" in refused(None, *overrides)
    load_config(None, [*overrides, "recovery.spikes.name=skip"], environment={})
