"""A folder for each class, and further sets to judge on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.config import load_config
from trimtab.data import LabelledTexts, PackedSequences, prepare_data, prepare_sets
from trimtab.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))


def folder_at(root: Path, **texts: list[str]) -> Path:
    for name, some in texts.items():
        for number, text in enumerate(some):
            place = root / name / ("deep" if number % 2 else "") / f"{number}.txt"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
    return root


def settings(path: Path, **more: Any) -> dict[str, Any]:
    return {
        "task": {"name": "classification"},
        "model": {"name": "encoder", "num_layers": 1, "hidden_size": 16, "num_heads": 2},
        "data": {
            "source": {"name": "folder", "path": str(path)},
            "validation_fraction": 0.3,
            "tokenizer": {"name": "bytes"},
            "sequence_length": 32,
        },
        "training": {"micro_batch_size": 2},
        **more,
    }


CATS = [f"the cat says meow {number}" for number in range(15)]
DOGS = [f"the dog says woof {number}" for number in range(15)]


def test_the_folder_at_the_top_is_the_class(tmp_path: Path) -> None:
    root = folder_at(tmp_path / "pets", cats=CATS, dogs=DOGS)
    (root / "readme.txt").write_text("of no class")
    (root / ".hidden").mkdir()
    (root / ".hidden" / "x.txt").write_text("not read")
    (root / "cats" / "picture.png").write_bytes(b"\0\1\2")
    config = load_config(settings(root), environment={})
    data = prepare_data(config.data, config.task, seed=0)
    assert data.targets.classes == ("cats", "dogs")
    assert len(data.training) + len(data.validation) == 30
    assert "2 classes" in data.facts["source"]
    for side in (data.training, data.validation):
        assert isinstance(side, LabelledTexts)
        batch = side.batch(np.arange(len(side)))
        for row in range(len(side)):
            animal = data.targets.classes[int(batch.targets[row])].removesuffix("s")
            assert animal in data.tokenizer.decode(side.row(row).tolist())


def test_equal_texts_are_on_one_side(tmp_path: Path) -> None:
    root = folder_at(tmp_path / "pets", cats=CATS + CATS, dogs=DOGS + DOGS)
    config = load_config(settings(root), environment={})
    assert prepare_data(config.data, config.task, seed=0).facts["leakage"] == 0


def test_what_is_no_folder_of_classes_is_refused(tmp_path: Path) -> None:
    root = folder_at(tmp_path / "pets", cats=CATS)
    config = load_config(settings(root), environment={})
    with pytest.raises(DataError, match="only 'cats'"):
        prepare_data(config.data, config.task, seed=0)
    config = load_config(settings(root / "cats" / "0.txt"), environment={})
    with pytest.raises(DataError, match="must be a folder"):
        prepare_data(config.data, config.task, seed=0)
    with pytest.raises(ConfigError, match=r"data.source.name folder does not fit task causal_lm"):
        load_config({"data": {"source": {"name": "folder", "path": "x"}}}, environment={})
    with pytest.raises(ConfigError, match="the class is the name of a folder"):
        load_config(settings(root, task={"name": "classification", "label": "x"}), environment={})


def test_a_further_set_has_the_classes_and_the_tokens_of_the_run(tmp_path: Path) -> None:
    root = folder_at(tmp_path / "pets", cats=CATS, dogs=DOGS)
    (tmp_path / "more.csv").write_text("text,label\nwoof,dogs\nmeow,cats\nwoof woof,dogs\n")
    sets = {"more": {"name": "csv", "path": str(tmp_path / "more.csv")}}
    config = load_config(settings(root, evaluation={"sets": sets}), environment={})
    data = prepare_data(config.data, config.task, seed=0)

    def prepared() -> Any:
        return prepare_sets(
            config.evaluation.sets,
            config.data,
            config.task,
            tokenizer=data.tokenizer,
            targets=data.targets,
            seed=0,
        )["more"]

    assert prepared().batch(np.arange(3)).targets.tolist() == [1, 0, 1]
    (tmp_path / "more.csv").write_text("text,label\nwoof,dog\n")
    with pytest.raises(DataError, match=r"evaluation\.sets\.more|no class 'dog'[\s\S]*did you mean 'dogs'"):
        prepared()


def test_a_further_set_of_text_is_whole(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc " * 200)
    (tmp_path / "b.txt").write_text("xyz " * 50)
    config = load_config(
        {
            "data": {
                "source": {"name": "text", "path": str(tmp_path / "a.txt")},
                "tokenizer": {"name": "bytes"},
                "sequence_length": 16,
            },
            "training": {"micro_batch_size": 2},
            "evaluation": {"sets": {"far": {"name": "text", "path": str(tmp_path / "b.txt")}}},
        },
        environment={},
    )
    data = prepare_data(config.data, config.task, seed=0)
    far = prepare_sets(
        config.evaluation.sets, config.data, config.task, tokenizer=data.tokenizer, targets=data.targets, seed=0
    )["far"]
    assert isinstance(far, PackedSequences)
    assert data.tokenizer.decode(far.tokens[:-1].tolist()) == "xyz " * 50


@pytest.mark.parametrize("name", ["a/b", "", "x" * 40])
def test_a_set_has_a_plain_name(name: str) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.sets"):
        load_config({"evaluation": {"sets": {name: {"name": "text", "path": "x"}}}}, environment={})
