"""Every preset trains to something that guessing does not reach. `make test-examples` runs it; `make test` does not."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from trimtab.config import list_presets, load_config

EXAMPLES = Path(__file__).parents[2] / "examples"
GAIN = {
    "classification": 0.25,
    "finetune-small-data": 0.15,
    "encoder-1m": 0.06,
    "regression": 0.08,
    "translation": 0.15,
    "finetune": 0.4,
}
"""By how much a preset must be better than guessing; those that learn to write better than the frequency of tokens by a
fifth of a bit per byte."""


@pytest.fixture
def presets(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The example as a module."""
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.syspath_prepend(str(EXAMPLES))
    spec = importlib.util.spec_from_file_location("presets", EXAMPLES / "presets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "presets", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", list_presets())
def test_it_is_better_than_guessing(name: str, presets: Any, tmp_path: Path) -> None:
    if load_config(name, environment={}).model.name == "hugging_face":
        pytest.importorskip("transformers")
    reached = presets.reached(name, tmp_path)
    print(reached)
    assert reached.gain > GAIN.get(name, 0.2)
    assert reached.verdict in ("healthy", "attention")


@pytest.mark.parametrize("name", list_presets())
def test_what_is_made_small_leaves_the_recipe(name: str, presets: Any, tmp_path: Path) -> None:
    config = load_config(name, environment={})
    settings = presets.small(config)
    if presets.tunes(config):
        settings |= {"model.path": "somewhere"}
    small = load_config(name, [f"{key}={value}" for key, value in settings.items()], environment={})
    for part in ("objective", "schedule", "gradients", "stopping", "recovery", "task"):
        assert getattr(small, part) == getattr(config, part), part
    left = {"learning_rate"}
    assert small.optimizer.model_dump(exclude=left) == config.optimizer.model_dump(exclude=left)
    kept = {"num_layers", "hidden_size", "num_heads", "num_kv_heads", "feed_forward_size", "path", "tokenizer"}
    assert small.model.model_dump(exclude=kept) == config.model.model_dump(exclude=kept)
    assert small.data.augmentation == config.data.augmentation


def test_results_are_kept_and_told(presets: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    asked: list[str] = []

    def reached(name: str, folder: Path, changes: Any) -> Any:
        asked.append(name)
        return presets.Reached(name, "bits_per_byte", 2.5, 3.0, 2.0, 300, 1_000_000, "healthy", 12.3)

    monkeypatch.setattr(presets, "reached", reached)
    out = tmp_path / "out.jsonl"
    for _ in range(2):
        assert presets.main(["--out", str(out), "--only", "gpt2", "demo"]) == 0
    assert asked == ["gpt2", "demo"], "what is done is not done again"
    assert [json.loads(line)["preset"] for line in out.read_text().splitlines()] == ["gpt2", "demo"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| `gpt2` | bits per byte | 2.500 | 3.000 | 2.000 | 300 | 1,000,000 |"
    less, more = (presets.Reached("p", figure, 0.4, 0.5, None, 1, 1, "", 1.0) for figure in ("bits_per_byte", "r2"))
    assert less.gain == pytest.approx(0.1)
    assert more.gain == pytest.approx(-0.1)
