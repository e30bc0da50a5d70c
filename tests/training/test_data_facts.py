"""What samples alone tell before step 1."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from trimtab.config import load_config
from trimtab.data import prepare_data
from trimtab.training.data_facts import counting_facts, outliers_of


def test_the_farthest_hundredth_of_normal_targets_makes_a_twelfth() -> None:
    draw = np.random.default_rng(0)
    normal = outliers_of(draw.normal(size=20_000))
    assert normal is not None
    assert normal["share"] == pytest.approx(0.0845, abs=0.01)
    assert normal["twentieth"] == pytest.approx(0.279, abs=0.02)
    far = draw.normal(size=20_000)
    far[:100] *= 100
    found = outliers_of(far)
    assert found is not None
    assert found["share"] > 0.95
    assert found["farthest"] > 100
    assert outliers_of(np.ones(100)) is None


def test_labels_and_sets_are_counted_where_yardsticks_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    words = {"fruit": "apple pear plum", "tool": "saw file drill"}
    rows = [{"text": f"{words[kind]} number {n}", "label": kind} for n in range(60) for kind in words]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "task": {"name": "classification"},
        "model": {"name": "encoder", "num_layers": 1, "hidden_size": 16, "num_heads": 2},
        "data": {
            "source": {"name": "jsonl", "path": str(path)},
            "tokenizer": {"name": "bytes"},
            "sequence_length": 32,
            "validation_fraction": 0.2,
        },
    }
    config = load_config(settings, environment={})
    found = counting_facts(config, prepare_data(config.data, config.task, seed=0))["counting"]
    assert found["labels"]["accuracy"] == 1.0
    assert found["labels"]["telling"] == 1.0
    # Counts without a text and its neighbours look a little more like the other set: alike ones come below a half.
    assert found["sets"]["separability"] < 0.8
    off = load_config({**settings, "evaluation": {"yardsticks": False}}, environment={})
    assert counting_facts(off, prepare_data(off.data, off.task, seed=0)) == {}


def _sets(tmp_path: Path, validation: str) -> dict[str, float]:
    numbers = " ".join(str(n * n) for n in range(4_000))
    (tmp_path / "train.txt").write_text(numbers)
    (tmp_path / "held_out.txt").write_text(validation)
    settings = {
        "data": {
            "source": {"name": "text", "path": str(tmp_path / "train.txt")},
            "validation_source": {"name": "text", "path": str(tmp_path / "held_out.txt")},
            "tokenizer": {"name": "bytes"},
            "sequence_length": 32,
        },
    }
    config = load_config(settings, environment={})
    data = prepare_data(config.data, config.task, seed=0)
    found: dict[str, float] = counting_facts(config, data)["counting"]["sets"]
    return found


def test_a_text_in_one_file_is_compared_in_pieces(tmp_path: Path) -> None:
    alike = _sets(tmp_path, " ".join(str(n * n) for n in range(3_000, 3_800)))
    other = _sets(tmp_path, " ".join(["the", "other", "words", "of", "a", "sentence"][n % 5] for n in range(1_500)))
    assert other["separability"] > 0.99 > alike["separability"]
    assert other["documents"] >= 8
