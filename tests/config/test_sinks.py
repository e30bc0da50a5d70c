"""Sinks in a configuration: by name alone, as sections, once each."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.config import (
    CustomSink,
    PrometheusSink,
    TensorBoardSink,
    WandbSink,
    dump_config,
    explain,
    load_config,
)
from trimtab.errors import ConfigError
from trimtab.runs.drift import drift


def loaded(*overrides: str) -> tuple[object, ...]:
    return load_config(None, overrides, environment={}).sinks


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides, environment={})
    return str(caught.value)


def test_a_name_alone_is_the_sink_with_its_defaults() -> None:
    assert loaded() == ()
    assert loaded("sinks=[tensorboard]") == (TensorBoardSink(),)
    assert loaded("sinks=tensorboard") == (TensorBoardSink(),)
    assert loaded("sinks=[{name: wandb, mode: offline, tags: [a]}, prometheus]") == (
        WandbSink(mode="offline", tags=("a",)),
        PrometheusSink(),
    )
    assert loaded("sinks={name: custom, target: 'm:f', arguments: {a: 1}}") == (
        CustomSink(target="m:f", arguments={"a": 1}),
    )


def test_they_are_written_and_read_again(tmp_path: Path) -> None:
    config = load_config(None, ["sinks=[tensorboard, {name: mlflow, tags: {a: b}}]"], environment={})
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    assert load_config(path, environment={}) == config
    assert "sinks: [{name: tensorboard, " in path.read_text()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sinks=[tensorbord]", "sinks.0.name: there is no such choice"),
        ("sinks=[tensorbord]", "did you mean 'tensorboard'"),
        ("sinks=[{name: wandb, projct: x}]", "sinks.0.projct: there is no such key"),
        ("sinks=[{name: wandb, projct: x}]", "did you mean 'project'"),
        ("sinks=[tensorboard, {name: wandb, mode: 3}]", "sinks.1.mode: must be 'online' or 'offline'"),
        ("sinks=[{name: prometheus, port: 70000}]", "sinks.0.port"),
        ("sinks=[tensorboard, tensorboard]", "sinks names tensorboard twice"),
        ("sinks=[{name: mlflow, tracking_uri: 'https://me:pw@host'}]", "holds a password"),
        ("sinks=[{name: prometheus, host: 0.0.0.0}]", "shows the run to the network"),
        ("sinks=3", "a list of names, or of sections whose name is one of: tensorboard, wandb"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(override: str, said: str) -> None:
    message = refused(override)
    assert said in message
    assert "override" in message
    assert "me:pw" not in message


def test_other_sinks_and_another_privacy_are_no_drift() -> None:
    was = {"config.sinks": [], "config.privacy.samples": "on", "config.seed": 0}
    now = {"config.sinks": [{"name": "wandb"}], "config.privacy.samples": "off", "config.seed": 0}
    assert drift(was, now) == []
    assert [one.what for one in drift(was, now | {"config.seed": 1})] == ["config.seed"]


def test_it_is_explained() -> None:
    said = explain("sinks")
    assert "tensorboard: Event files in the run's folder" in said
    assert "mode: online needs an account, offline none" in said


def test_a_missing_package_is_told_before_torch_is_imported() -> None:
    import subprocess
    import sys

    script = (
        "import sys; sys.modules['wandb'] = None\n"
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'wandb' else real(name, *more)\n"
        "sys.argv = ['trimtab', 'train', 'demo', 'sinks=[{name: wandb, mode: offline}]']\n"
        "import atexit; atexit.register(lambda: print('torch' in sys.modules))\n"
        "from trimtab.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "sinks: wandb: needs wandb, which is not installed" in done.stderr
    assert "hint: pip install 'trimtab[wandb]'" in done.stderr
    assert done.stdout.strip() == "False"
