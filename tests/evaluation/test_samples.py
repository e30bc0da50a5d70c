"""Samples of a run: the same prompts and seeds in every round and rerun, and several draws of each prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from trimtab import Trainer, load_config
from trimtab.evaluation import generate
from trimtab.runs import History, RunDirectory
from trimtab.signals import key

SMALL = (
    "training.steps=4",
    "evaluation.every=2",
    "data.tokenizer.name=bytes",
    "model.num_layers=1",
    "model.hidden_size=16",
    "model.num_heads=2",
    "data.sequence_length=32",
    "evaluation.gap_tokens=0",
    "evaluation.max_tokens=500",
    "evaluation.yardsticks=false",
    "evaluation.samples.max_tokens=12",
    "evaluation.samples.prompts=['', 'def ']",
)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def samples(run: Path, *settings: str) -> tuple[Trainer, dict[tuple[int, str], str]]:
    trainer = Trainer(load_config("gpt-1m", [*SMALL, *settings]), run=run)
    trainer.fit()
    artifacts = History.read(RunDirectory(run).record).artifacts
    return trainer, {(one.step, one.name): one.text for one in artifacts if one.kind == "sample"}


def test_each_prompt_has_draws_with_seeds_of_their_own(tmp_path: Path) -> None:
    trainer, found = samples(tmp_path / "several", "evaluation.samples.seeds=3")
    _, again = samples(tmp_path / "again", "evaluation.samples.seeds=3")
    _, single = samples(tmp_path / "single")
    names = [f"sample-{prompt}{draw}" for prompt in (0, 1) for draw in ("", "-1", "-2")]
    assert list(found) == [(step, name) for step in (2, 4) for name in names]
    assert found == again
    assert single == {place: text for place, text in found.items() if place[1] in ("sample-0", "sample-1")}
    assert len({found[4, name] for name in names[3:]}) == 3
    assert all(found[4, name].startswith("def ") for name in names[3:])
    assert trainer.model is not None
    assert trainer.data is not None
    tokenizer = trainer.data.tokenizer
    sampling: Any = {"max_tokens": 12, "temperature": 0.8, "top_k": 50, "context_length": 32}
    written = generate(
        trainer.model,
        tokenizer.encode("def "),
        seed=key(trainer.config.seed, 2, 1, "generation"),
        end_of_text=tokenizer.end_of_text,
        device=torch.device("cpu"),
        **sampling,
    )
    assert found[4, "sample-1-2"] == "def " + tokenizer.decode(written)
