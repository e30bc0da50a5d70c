from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.config import load_config, load_with_origin
from trimtab.errors import ConfigError


def refused(folder: Path, data: bytes, name: str = "my.yaml") -> str:
    path = folder / name
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        load_config(path, environment={})
    return str(caught.value).replace(str(path), name)


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"", "my.yaml:1: gives no keys"),
        (b"# only a comment\n", "my.yaml:1: gives no keys"),
        (b"- 1\n- 2\n", "my.yaml:1: gives no keys"),
        (b"just text\n", "Received: 'just text'"),
        (b"seed: 1\ntraining:\n  steps: 3\nseed: 2\n", "my.yaml:4: seed: is given twice, first in line 1"),
        (b"training:\n  steps: 3\n  steps: 4\n", "my.yaml:3: training.steps: is given twice, first in line 2"),
        (b"training:\n\tsteps: 3\n", "my.yaml:2: is not valid YAML: found character '\\t'"),
        (b"training:\n\tsteps: 3\n", "indent with spaces"),
        (b"training: {steps: 3\nseed: 1\n", "my.yaml:2: is not valid YAML"),
        (b"a: b: c\n", "my.yaml:1: is not valid YAML"),
        (b"seed: 1\n---\nseed: 2\n", "my.yaml:2: is not valid YAML: but found another document"),
        (b"seed: 1\nname: \xff\xfe\n", "my.yaml:2: is not UTF-8 text\n  Received: byte 0xff"),
        ("seed: 1".encode("utf-16"), "my.yaml:1: is not UTF-8 text"),
        (b"seed: 1\nname: \x00\n", "my.yaml:2: is not valid YAML: a character that is not text"),
        (b"seed: !!python/object:os.system ls\n", "my.yaml:1: seed"),
        (b"seed: !mine 3\n", "my.yaml:1: seed: a tag has no meaning here"),
        (b"seed: !!int x\n", "my.yaml:1: seed: invalid literal"),
        (b"? [a]\n: 1\n", "my.yaml:1: a key must be a word"),
        (b"1: 2\n", "my.yaml:1: 1: there is no such key"),
        (b"<<: {seed: 1}\n", "my.yaml:1: <<: there is no such key"),
        (b"seed: " + b"9" * 5000 + b"\n", "my.yaml:1: seed: Exceeds the limit"),
        (b"seed: &x [*x]\n", "my.yaml:1: seed: an alias of a section or list is not supported"),
        (b"model: &x\n  norm: *x\n", "my.yaml:1: model.norm: an alias"),
        (b"[" * 1200, "my.yaml:1: is not valid YAML: it is nested too deeply"),
        (b"{a: " * 60 + b"1" + b"}" * 60, "is nested deeper than"),
        (b"x" * (1 << 18) + b"y", "is larger than 256 KiB"),
    ],
)
def test_yaml_that_is_refused(tmp_path: Path, data: bytes, expected: str) -> None:
    assert expected in refused(tmp_path, data)


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"", "my.toml:1: gives no keys"),
        (b"seed = 1\nsteps = = 2\n", "my.toml:2: is not valid TOML: Invalid value"),
        (b"seed = 1\nseed = 2\n", "my.toml:2: is not valid TOML: Cannot overwrite a value"),
        (b"seed = 1\nname = 'x", "my.toml:2: is not valid TOML"),
        (b"a = " + b"[" * 5000, "my.toml: is not valid TOML: it is nested too deeply"),
        (b"[training]\nstesp = 2\n", "my.toml:2: training.stesp: there is no such key"),
        (b"[training]\n\n[training.precison]\nname = 'bf16'\n", "my.toml:3: training.precison: there is no"),
        (b"seed = 1\nmodel = {dropot = 1}\n", "my.toml:2: model.dropot: there is no such key"),
        (b'name = """\nsteps = 1\n"""\n[training]\nstesp=1\n', "my.toml:5: training.stesp"),
        (b"seed = 2020-01-01\n", "my.toml:1: seed: must be a whole number"),
        (b"[[training]]\nsteps = 1\n", "my.toml:1: training: must be a section, not a value"),
        (b"'optimizer'.\"learning_raet\" = 1\n", "my.toml:1: optimizer.learning_raet: there is no such key"),
        (b"name = '\xff'", "my.toml:1: is not UTF-8 text"),
    ],
)
def test_toml_that_is_refused(tmp_path: Path, data: bytes, expected: str) -> None:
    assert expected in refused(tmp_path, data, "my.toml")


def test_values_that_yaml_1_1_reads_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: no\r\ntraining:\r\n  compile: off\r\n  steps: 1_000\r\n")
    loaded = load_with_origin(path, environment={})
    assert loaded.config.name == "no"
    assert loaded.config.training.compile == "off"
    assert loaded.config.training.steps == 1000
    assert loaded.origins["training.steps"] == f"{path}:4"


def test_dates_are_text(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("name: 2026-01-02\n")
    assert load_config(path, environment={}).name == "2026-01-02"


def test_alias_of_a_value(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("evaluation: {every: &often 50}\ncheckpoint: {every: *often}\n")
    assert load_config(path, environment={}).checkpoint.every == 50


def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300 + ".yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(path, environment={})


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=60), suffix=st.sampled_from(["yaml", "toml"]))
def test_any_bytes_load_or_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"any.{suffix}"
    path.write_bytes(data)
    try:
        load_config(path, environment={})
    except ConfigError:
        return


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_any_override_loads_or_is_refused(text: str) -> None:
    for key in ("training.steps", "model", "evaluation.samples.prompts", "optimizer.name", text):
        try:
            load_config(None, [f"{key}={text}"], environment={})
        except ConfigError:
            continue
