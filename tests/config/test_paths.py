"""Paths in a configuration: there or not, and the same from every folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.config import load_config
from trimtab.config.paths import require_paths, with_absolute_paths
from trimtab.errors import DataError

TEXT = ["data.source={name: text, path: mine}", "data.tokenizer={name: file, path: ~/tokens}"]
HELD_OUT = "data.validation_source={name: jsonl, path: /held.jsonl}"


def test_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    config = with_absolute_paths(load_config(None, [*TEXT, HELD_OUT], environment={}))
    assert config.data.source.path == str(tmp_path / "mine")
    assert config.data.tokenizer.path == "/home/me/tokens"
    assert config.data.validation_source.path == "/held.jsonl"
    monkeypatch.chdir("/")
    assert with_absolute_paths(config) == config
    plain = load_config("demo", environment={})
    assert with_absolute_paths(plain) is plain


def test_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    require_paths(load_config("demo", environment={}))
    config = load_config(None, [TEXT[0], "data.tokenizer={name: file, path: mine}"], environment={})
    with pytest.raises(DataError, match=rf"data.source.path: there is nothing at 'mine'\nhint: .* {tmp_path}$"):
        require_paths(config)
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match=r"data.tokenizer.path: there is no file 'mine/tokenizer.json'"):
        require_paths(config)
    (tmp_path / "mine/tokenizer.json").touch()
    require_paths(config)


def test_folders_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(None, ["model={name: hugging_face, path: mine}"], environment={})
    assert config.data.tokenizer.path == "mine"
    whole = with_absolute_paths(config)
    assert whole.model.path == whole.data.tokenizer.path == str(tmp_path / "mine")
    with pytest.raises(DataError, match=r"model.path: there is no folder 'mine'\nhint: models are read from local"):
        require_paths(config)
    (tmp_path / "mine").mkdir()
    for name, missing in (("config.json", "no config.json"), ("model.safetensors", "none of model.safetensors")):
        with pytest.raises(DataError, match=missing):
            require_paths(config)
        (tmp_path / "mine" / name).touch()
    require_paths(config)
    other = load_config(None, ["data.tokenizer={name: hugging_face, path: nowhere}"], environment={})
    with pytest.raises(DataError, match=r"data.tokenizer.path: there is no folder 'nowhere'"):
        require_paths(other)
