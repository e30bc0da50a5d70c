from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.config import (
    AdamWConfig,
    Config,
    ConstantSchedule,
    CosineSchedule,
    CustomOptimizer,
    DecoderConfig,
    NormClip,
    NoStopping,
    PatienceStopping,
    TextSource,
    WsdSchedule,
    load_config,
    load_with_origin,
)
from trimtab.config.model import LayerNorm, RmsNorm
from trimtab.errors import ConfigError


def write(folder: Path, text: str, name: str = "my.yaml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def refused(source: object = None, *overrides: str, **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(source, overrides, environment=environment)  # type: ignore[arg-type]
    assert "pydantic" not in str(caught.value)
    return str(caught.value)


def test_nothing_gives_the_defaults() -> None:
    loaded = load_with_origin(environment={})
    assert loaded.config == Config()
    assert set(loaded.origins.values()) == {"default"}
    assert loaded.source == "defaults"


def test_precedence_and_origins(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "preset: gpt-1m\n"
        "seed: 1\n"
        "training:\n"
        "  steps: 10\n"
        "  accumulation: 2\n"
        "optimizer: {learning_rate: 1e-4, beta1: 0.8}\n",
    )
    environment = {
        "TRIMTAB_TRAINING__ACCUMULATION": "3",
        "TRIMTAB_OPTIMIZER__BETA1": "0.7",
        "TRIMTAB_SEED": "2",
    }
    loaded = load_with_origin(path, ["optimizer.beta1=0.6", "optimizer.beta1=0.5"], environment=environment)
    config = loaded.config
    assert isinstance(config.optimizer, AdamWConfig)
    assert isinstance(config.model, DecoderConfig)
    values = {
        "optimizer.epsilon": (config.optimizer.epsilon, 1e-8, "default"),
        "model.hidden_size": (config.model.hidden_size, 128, "preset gpt-1m"),
        "training.steps": (config.training.steps, 10, f"{path}:4"),
        "optimizer.learning_rate": (config.optimizer.learning_rate, 1e-4, f"{path}:6"),
        "training.accumulation": (
            config.training.accumulation,
            3,
            "environment TRIMTAB_TRAINING__ACCUMULATION",
        ),
        "seed": (config.seed, 2, "environment TRIMTAB_SEED"),
        "optimizer.beta1": (config.optimizer.beta1, 0.5, "override"),
    }
    for key, (value, expected, origin) in values.items():
        assert value == expected, key
        assert loaded.origins[key] == origin, key
    assert loaded.source == f"{path} (preset gpt-1m)"


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "0.0001", "1.0e-4", "+1e-4"])
def test_spellings_of_a_float(text: str, tmp_path: Path) -> None:
    path = write(tmp_path, f"optimizer:\n  learning_rate: {text}\n")
    for config in (
        load_config(path, environment={}),
        load_config(None, [f"optimizer.learning_rate={text}"], environment={}),
        load_config(None, environment={"TRIMTAB_OPTIMIZER__LEARNING_RATE": text}),
    ):
        assert config.optimizer.learning_rate == 1e-4


def test_values_of_overrides() -> None:
    config = load_config(
        None,
        [
            "training.steps=1e4",
            "data.sequence_length=1_024",
            "evaluation.samples.prompts=[def, 'a: b']",
            "stopping={name: none}",
            "model.norm.name=rms_norm",
            "data.validation_source={name: text, path: held-out}",
            "checkpoint.every=null",
            "name=2026-01-01",
        ],
        environment={},
    )
    assert config.training.steps == 10_000
    assert config.data.sequence_length == 1024
    assert config.evaluation.samples.prompts == ("def", "a: b")
    assert config.stopping == NoStopping()
    assert isinstance(config.model, DecoderConfig)
    assert config.model.norm == RmsNorm()
    assert config.data.validation_source == TextSource(path="held-out")
    assert config.checkpoint.every is None
    assert config.name == "2026-01-01"


def test_text_needs_no_quotes_on_the_command_line() -> None:
    source = "data.source={name: text, path: x}"
    config = load_config(
        None, [source, "data.source.pattern=*.py", "data.source.path=a: b #1", "name=123"], environment={}
    )
    assert config.data.source == TextSource(path="a: b #1", pattern="*.py")
    assert config.name == "123"
    quoted = load_config(None, [source, 'data.source.path="tab\\t"'], environment={})
    assert quoted.data.source == TextSource(path="tab\t")


def test_another_variant_starts_afresh() -> None:
    config = load_config(
        "gpt-10m",
        ["optimizer.name=custom", "optimizer.target=torch.optim:SGD", "optimizer.arguments.momentum=0.9"],
        environment={},
    )
    assert config.optimizer == CustomOptimizer(target="torch.optim:SGD", arguments={"momentum": 0.9})
    wsd = load_config("gpt-10m", ["schedule.name=wsd"], environment={})
    assert wsd.schedule == WsdSchedule()
    same = load_config("gpt-10m", ["schedule.name=cosine"], environment={})
    assert same.schedule == load_config("gpt-10m", environment={}).schedule


def test_another_target_starts_with_no_arguments(tmp_path: Path) -> None:
    path = write(tmp_path, "optimizer: {name: custom, target: 'torch.optim:SGD', arguments: {momentum: 0.9}}\n")
    changed = load_config(path, ["optimizer.target=torch.optim:Rprop"], environment={})
    assert changed.optimizer == CustomOptimizer(target="torch.optim:Rprop")
    kept = load_config(path, ["optimizer.arguments.nesterov=true"], environment={})
    assert isinstance(kept.optimizer, CustomOptimizer)
    assert kept.optimizer.arguments == {"momentum": 0.9, "nesterov": True}


def test_fields_of_another_variant_in_the_same_or_a_higher_layer_are_refused(tmp_path: Path) -> None:
    message = refused(None, "stopping.name=none", "stopping.patience=3")
    assert "override: stopping.patience: has no effect: stopping is 'none', which has no such key" in message
    assert "hint: stopping.name=patience has it" in message
    path = write(tmp_path, "schedule:\n  name: constant\n  floor: 0.1\n")
    message = refused(path)
    assert f"{path}:3: schedule.floor: has no effect" in message
    assert "schedule.name=linear, cosine, polynomial, " in message
    path = write(tmp_path, "schedule:\n  name: constant\n")
    assert "schedule.decay: has no effect" in refused(path, "schedule.decay=0.1")


def test_a_section_without_a_name_keeps_that_of_the_layer_below(tmp_path: Path) -> None:
    path = write(tmp_path, "model: {norm: {placement: post}}\n")
    config = load_config(path, environment={})
    assert isinstance(config.model, DecoderConfig)
    assert config.model.norm == LayerNorm(placement="post")
    llama = write(tmp_path, "preset: llama-small\nmodel: {norm: {placement: post}}\n")
    config = load_config(llama, environment={})
    assert isinstance(config.model, DecoderConfig)
    assert config.model.norm == RmsNorm(placement="post", epsilon=1e-5)


def test_a_mapping_is_a_source() -> None:
    loaded = load_with_origin({"preset": "gpt2", "training": {"steps": 7}}, environment={})
    assert loaded.config.training.steps == 7
    assert loaded.origins["training.steps"] == "python"
    assert loaded.origins["model.hidden_size"] == "preset gpt2"


def test_toml(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'preset = "gpt-1m"\n'
        "optimizer.learning_rate = 1e-4\n"
        "\n"
        "[training]\n"
        "steps = 10\n"
        "[schedule]\n"
        'name = "constant"\n'
        "[model.dropout]\n"
        "residual = 0.2\n",
        "my.toml",
    )
    loaded = load_with_origin(str(path), environment={})
    assert loaded.config.optimizer.learning_rate == 1e-4
    assert loaded.config.schedule == ConstantSchedule()
    assert loaded.origins["training.steps"] == f"{path}:5"
    assert loaded.origins["optimizer.learning_rate"] == f"{path}:2"
    assert loaded.origins["model.dropout.residual"] == f"{path}:9"


def test_variables_that_are_not_settings_do_not_count() -> None:
    environment = {
        "TRIMTAB_CACHE": "/somewhere",
        "TRIMTAB_NAME": "",
        "OTHER__THING": "1",
        "trimtab_seed": "9",
    }
    assert load_config(environment=environment) == Config()


def test_the_environment_of_the_process_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_TRAINING__STEPS", "12")
    assert load_config().training.steps == 12


def test_wrong_variable_is_refused_by_its_name() -> None:
    message = refused(TRIMTAB_OPTIMIZER__LEARNING_RAET="1")
    assert "environment TRIMTAB_OPTIMIZER__LEARNING_RAET: optimizer.learning_raet: there is no such key" in message
    assert "did you mean 'learning_rate'?" in message


def test_all_problems_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "optimizer:\n"
        "  learing_rate: 1e-3\n"
        "  beta1: 1.5\n"
        "training:\n"
        "  steps: '100'\n"
        "  device: gpu\n"
        "model: {dropout: 0.1}\n",
    )
    message = refused(path, "nonsense", "seed=-1", TRIMTAB_LOGGING__EVERY="0")
    for part in (
        "7 problems in the configuration",
        f"{path}:2: optimizer.learing_rate: there is no such key\n    Received: 0.001\n    Allowed: name, ",
        "hint: did you mean 'learning_rate'?",
        f"{path}:3: optimizer.beta1: must be a number at least 0.0 and less than 1.0\n    Received: 1.5",
        f'{path}:5: training.steps: must be a whole number at least 1\n    Received: "100"',
        f"{path}:6: training.device: must be one of: auto, cpu, cuda\n    Received: gpu",
        f"{path}:7: model.dropout: must be a section, not a value\n    Received: 0.1",
        "override: is not an override\n    Received: 'nonsense'\n    Allowed: section.key=value",
        "override: seed: must be a whole number at least 0",
        "environment TRIMTAB_LOGGING__EVERY: logging.every: must be a whole number from 1 to 1000",
    ):
        assert part in message or part.startswith("7"), f"{part}\n---\n{message}"
    assert message.startswith("8 problems")


@pytest.mark.parametrize(
    "override, parts",
    [
        ("training.steps", ["is not an override", "joined by '='"]),
        ("=3", ["is not an override"]),
        ("training..steps=3", ["is not an override"]),
        ("--training.steps=3", ["without the dashes: training.steps=3"]),
        ("training.stesp=3", ["training.stesp: there is no such key", "did you mean 'steps'?"]),
        ("training.steps.more=3", ["training.steps: must be a whole number", "Received: {more: 3}"]),
        ("training.steps=[", ["training.steps: is not valid YAML"]),
        ("training.steps=", ["training.steps: must be a whole number", "Received: null"]),
        ("training.steps=true", ["training.steps: must be a whole number", "Received: true"]),
        ("training.steps=1.5", ["training.steps: must be a whole number"]),
        ("training.deterministic=1", ["training.deterministic: must be true or false", "Received: 1"]),
        ("optimizer.learning_rate=.nan", ["must be a number greater than 0.0", "Received: .nan"]),
        ("optimizer.learning_rate=1e400", ["must be a number greater than 0.0", "Received: .inf"]),
        ("training.steps=" + "9" * 5000, ["training.steps: "]),
        ("training=5", ["training: must be a section, not a value", "with some of the keys: steps"]),
        ("training=null", ["training: must be a section, not a value", "Received: null"]),
        ("stopping=none", ["stopping: must be a section", "did you mean stopping.name=none?"]),
        ("optimizer.name=adan", ["optimizer.name: there is no such choice", "one of: adamw, adamw_8bit, adam, "]),
        ("optimizer.name=[a]", ["optimizer.name: there is no such choice"]),
        ("optimizer.name={a: 1}", ["optimizer.name: there is no such choice"]),
        ("data.source.name=text", ["data.source.path: must be given", "Allowed: text"]),
        ("data.validation_source.path=x", ["data.validation_source.name: must be given", "jsonl"]),
        ("data.validation_source.pth=x", ["data.validation_source.name: must be given"]),
        ("schedule.warmup=1.5", ["schedule.warmup: a part of the run must lie between 0.0 and 1.0"]),
        ("schedule.warmup=-1", ["schedule.warmup: must not be negative", "Allowed: a whole number"]),
        ("schedule.warmup=x", ["schedule.warmup: must be a number of steps"]),
        ("evaluation.samples.prompts=[1]", ["evaluation.samples.prompts: must be a list of texts"]),
        ("evaluation.samples.prompts=x", ["evaluation.samples.prompts: must be a list of texts"]),
        (
            "optimizer.rates.schedules={'a.*': {name: consant}}",
            ["optimizer.rates.schedules.a.*.name: there is no such choice", "Received: consant", "did you mean 'const"],
        ),
        ("optimizer.rates.schedules={'a.*': {warmup: 3}}", ["schedules.a.*.name: must be given", "one of: constant"]),
        (
            "optimizer.rates.schedules={'a': {name: cosine, floor: 3}}",
            ["a.floor: must be less than or equal"],
        ),
        ("optimizer.rates.schedules={'a': {name: cosine, flor: 1}}", ["a.flor: there is no such key", "'floor'?"]),
        ("optimizer.rates.schedules={'a': 3}", ["schedules.a: must be a section, not a value", "Received: 3"]),
        ("optimizer.rates.schedules=3", ["optimizer.rates.schedules: must be a mapping of names to sections"]),
        ("gradients.clip.groups={'a': -1}", ["gradients.clip.groups: must be a mapping", "Received: -1"]),
        ("name=a b", ["name: must be text that matches"]),
        ("model.num_heads=3", ["override: model: hidden_size must be a multiple of num_heads: 256 over 3"]),
        ("model.max_positions=8", ["data.sequence_length 256 is longer than model.max_positions 8"]),
        ("preset=gpt2", ["preset: there is no such key"]),
        ("model={name: cnn, dropout: {layer: 0.1}}", ["layer: there is no such key", "hint: model.name=decoder, enc"]),
        ("model={name: encoder_decoder, dropout: {head: 0.1}}", ["hint: model.name=decoder, encoder or cnn has it"]),
    ],
)
def test_override_that_is_refused(override: str, parts: list[str]) -> None:
    message = refused(None, override)
    for part in parts:
        assert part in message
    assert len(message) < 1000


def test_combination_names_every_place(tmp_path: Path) -> None:
    path = write(tmp_path, "model:\n  hidden_size: 100\n  num_heads: 3\n")
    message = refused(path)
    assert message.startswith(f"{path}:2, {path}:3: model: hidden_size must be a multiple of num_heads")
    assert "Received: model.hidden_size: 100, model.num_heads: 3" in message


@pytest.mark.parametrize(
    "source, parts",
    [
        ("gtp2", ["there is no preset of that name", "gpt-10m, gpt-1m", "did you mean 'gpt2'?"]),
        ("my.yml", ["my.yml: there is no such file"]),
        ("nowhere/my.yaml", ["there is no such file"]),
        ("some/config.json", ["some/config.json: a configuration file ends in .yaml, .yml or .toml"]),
        (Path("gpt2"), ["a preset is called by its name alone"]),
    ],
)
def test_source_that_is_not_there(source: str | Path, parts: list[str]) -> None:
    message = refused(source)
    for part in parts:
        assert part in message


def test_near_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, "seed: 1\n", "config.yaml")
    assert "did you mean 'config.yaml'?" in refused(tmp_path / "confg.yaml")
    message = refused(tmp_path)
    assert "is a folder, not a configuration file" in message
    assert str(tmp_path / "config.yaml") in message


def test_a_folder_of_the_same_name_does_not_hide_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_config("demo", environment={}).name == "demo"
    assert "mine: is a folder" in refused("mine")


def test_a_key_without_end_is_cut() -> None:
    assert len(refused({"training": {"x" * 100_000: "y" * 100_000}})) < 500


def test_unknown_preset_in_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, "seed: 1\npreset: gpt-2\n")
    message = refused(path)
    assert f"{path}:2: preset: there is no such preset" in message
    assert "did you mean 'gpt2'?" in message
    assert "preset: there is no such preset" in refused({"preset": 3})


def test_many_problems_are_cut_short(tmp_path: Path) -> None:
    path = write(tmp_path, "".join(f"key{i}: 1\n" for i in range(200)))
    message = refused(path)
    assert message.startswith("200 problems")
    assert "and 160 more" in message


def test_checking_is_fast_and_without_torch(tmp_path: Path) -> None:
    path = write(tmp_path, "preset: gpt-10m\noptimizer: {learning_rate: 1e-4}\n")
    code = (
        "import sys, time; start = time.process_time()\n"
        "from trimtab.config import load_config\n"
        "from trimtab.doctor.lint import lint, refuse\n"
        "config = load_config(sys.argv[1]); refuse(lint(config), config.lint.allow)\n"
        "seconds = time.process_time() - start\n"
        "assert not {'torch', 'tokenizers', 'safetensors', 'scipy', 'numpy'} & set(sys.modules)\n"
        "print(seconds)"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TRIMTAB")}
    times = [
        float(
            subprocess.run(
                [sys.executable, "-c", code, str(path)], check=True, capture_output=True, env=environment
            ).stdout
        )
        for _ in range(4)
    ]
    assert min(times) <= 0.8  # of an old processor


def test_importing_does_not_load_yaml() -> None:
    code = "import sys, trimtab.config; assert 'ruamel.yaml' not in sys.modules and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_python_values_are_as_strict() -> None:
    assert PatienceStopping(patience=3).patience == 3
    assert NormClip(threshold=1).threshold == 1.0
    with pytest.raises(ValueError):
        Config.model_validate({"training": {"steps": "3"}})
    with pytest.raises(ValueError):
        Config.model_validate({"training": {"steps": True}})


@pytest.mark.parametrize(
    "name,near",
    [
        ("TRIMTAB_OPTIMIZER_LEARNING_RATE", "TRIMTAB_OPTIMIZER__LEARNING_RATE"),
        ("TRIMTAB_STEPS", "TRIMTAB_TRAINING__STEPS"),
        ("TRIMTAB_LR", "TRIMTAB_OPTIMIZER__LEARNING_RATE"),
    ],
)
def test_an_environment_name_that_is_no_setting_is_refused_with_the_right_one(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match="there is no such key") as caught:
        load_config("gpt-1m", environment={name: "5"})
    assert name in str(caught.value)
    assert near in str(caught.value)


def test_environment_names_that_are_not_settings_but_known_are_left_alone() -> None:
    assert load_config("gpt-1m", environment={"TRIMTAB_CACHE": "/x", "TRIMTABULATE": "1", "TRIMTAB_FOO": ""})


def test_a_whole_section_as_override_replaces_the_one_before() -> None:
    rising = "schedule={name: triangular, rise: 0.4}"
    assert load_config(None, [rising, "schedule={name: cosine}"], environment={}).schedule == CosineSchedule()
    with pytest.raises(ConfigError, match=r"schedule\.rise: has no effect"):
        load_config(None, [rising, "schedule.name=cosine"], environment={})


def test_a_value_that_fits_none_of_several_kinds_is_one_problem() -> None:
    with pytest.raises(ConfigError) as error:
        load_config("gpt-1m", ["training.micro_batch_size=4.5"])
    assert "2 problems" not in str(error.value)
    assert str(error.value).count("must be") == 1


def test_the_gap_is_followed_where_it_is_measured() -> None:
    settings = [
        "averaging={name: ema, evaluate: average}",
        "checkpoint.metric=validation/loss@ema",
        "stopping={name: none}",
        "control.regularization={name: gap}",
    ]
    with pytest.raises(ConfigError, match=r"of the plain weights, which averaging\.evaluate average leaves out"):
        load_config("gpt-1m", settings)
    load_config("gpt-1m", ["averaging={name: ema}", *settings[1:]])


def test_beside_a_wrong_name_keys_that_no_choice_has_are_told() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"optimizer": {"name": "adamm", "learning_rte": 2e-3, "beta1": 0.8}}, environment={})
    text = str(caught.value)
    assert "2 problems" in text
    assert "did you mean 'adamw' or 'adam'?" in text
    assert "optimizer.learning_rte: there is no such key" in text
    assert "did you mean 'learning_rate'?" in text
    assert "beta1: " not in text


def test_an_entry_that_is_wrong_is_told_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"alerts": {"rules": {"a": {"when": "end any", "to": ["consol"]}}}}, environment={})
    assert "alerts.rules.a.to.0: must be" in str(caught.value)
    assert "problems" not in str(caught.value)
