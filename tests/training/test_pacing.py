"""A run with a curriculum: its first steps see what is easy, by length and by the loss of another run's model."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trimtab.config import Config
from trimtab.data import LabelledTexts
from trimtab.errors import ConfigError
from trimtab.trainer import Trainer
from trimtab.training.pacing import prepared, sample_losses
from trimtab.training.trained import open_trained

WORDS = ["fine", "good", "bad", "poor", "day", "night", "one", "two", "three", "four"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    order = random.Random(0)
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    lines = []
    for number in range(200):
        words = [order.choice(WORDS) for _ in range(order.randrange(2, 12))]
        lines.append(json.dumps({"text": f"{number} {' '.join(words)}", "label": "good" in words}))
    path.write_text("\n".join(lines) + "\n")
    return path


def config_of(rows: Path, **curriculum: Any) -> Config:
    return Config.model_validate(
        {
            "name": "paced",
            "task": {"name": "classification", "bucketing": 4},
            "data": {
                "source": {"name": "jsonl", "path": str(rows)},
                "tokenizer": {"name": "bytes"},
                "sequence_length": 64,
                **({"curriculum": curriculum} if curriculum else {}),
            },
            "model": {"name": "encoder", "num_layers": 1, "hidden_size": 16, "num_heads": 2},
            "training": {
                "steps": 20, "micro_batch_size": 4, "accumulation": 2, "device": "cpu", "threads": 1, "compile": "off",
            },
            "schedule": {"name": "cosine", "warmup": 2},
            "evaluation": {"every": 10},
            "lint": {"allow": []},
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def reference(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("reference") / "run"
    Trainer(config_of(rows), run=run).fit()
    return run


def test_the_first_steps_see_short_texts(rows: Path) -> None:
    data = prepared(config_of(rows, name="length", start=0.1, span=0.5, pacing={"name": "linear"}))
    assert isinstance(data.training, LabelledTexts)
    lengths = data.training.lengths[data.order.sequences_at(np.arange(160))]
    # 10 of 20 steps of 8 texts.
    assert data.facts["curriculum"] | {"order_sha256": ""} == {
        "positions": 80, "first_samples": 19, "order_sha256": "", "steps": 10,
    }  # fmt: skip
    assert lengths[:8].max() <= np.sort(data.training.lengths)[51]
    assert lengths[:20].mean() < lengths[20:80].mean() < lengths[80:].mean() + 3
    plain = prepared(config_of(rows)).order.sequences_at(np.arange(80))
    assert data.order.sequences_at(np.arange(80, 160)).tolist() == plain.tolist()


def test_the_losses_of_a_reference_are_those_of_its_model(rows: Path, reference: Path) -> None:
    config = config_of(rows)
    data, trained = prepared(config), open_trained(reference)
    losses = sample_losses(trained, config, data, lambda stage, fraction: None)
    for index in (0, 7, len(data.training) - 1):
        batch = data.training.batch(np.array([index]))
        with torch.no_grad():
            logits = trained.model(batch.tokens_BT, batch.positions_BT, batch.document_ids_BT)
            logits = logits if isinstance(logits, torch.Tensor) else logits.logits
            expected = torch.nn.functional.cross_entropy(logits.float(), batch.targets)
        assert losses[index] == pytest.approx(expected.item(), rel=1e-4)


def test_a_curriculum_by_the_loss_of_a_run(rows: Path, reference: Path, tmp_path: Path) -> None:
    config = config_of(rows, name="loss", run=str(reference), span=0.6)
    data = prepared(config)
    losses = sample_losses(open_trained(reference), config, data, lambda stage, fraction: None)
    first = data.order.sequences_at(np.arange(8))
    assert losses[first].max() <= np.sort(losses)[int(0.35 * len(losses))]
    kept = list((data.cache / "derived").glob("losses-*.npy"))
    assert len(kept) == 1
    assert np.load(kept[0]).tolist() == losses.tolist()
    result = Trainer(config, run=tmp_path / "run").fit()
    facts = json.loads((result.run / "facts.json").read_text())
    assert facts["identity"]["data.order"] == facts["curriculum"]["order_sha256"]
    assert facts["curriculum"]["positions"] == 96


def test_another_order_by_difficulty_is_drift(rows: Path, reference: Path, tmp_path: Path) -> None:
    """The losses are computed again where the cache is gone; an order that came out differently is told."""
    config = config_of(rows, name="loss", run=str(reference))
    result = Trainer(config, run=tmp_path / "run").fit()
    data = prepared(config)
    (kept,) = (data.cache / "derived").glob("losses-*.npy")
    np.save(kept, np.load(kept)[::-1])
    facts = json.loads((result.run / "facts.json").read_text())
    assert prepared(config).facts["curriculum"]["order_sha256"] != facts["identity"]["data.order"]


def test_a_reference_of_another_tokenizer_is_refused(rows: Path, reference: Path) -> None:
    config = config_of(rows, name="loss", run=str(reference))
    other = config.data.model_validate(
        config.data.model_dump() | {"tokenizer": {"name": "bpe", "vocabulary_size": 300}}
    )
    with pytest.raises(ConfigError, match=r"data\.curriculum\.run: its tokenizer"):
        prepared(config.model_copy(update={"data": other}))
