"""A disk that does not answer while older checkpoints are pruned: the save is complete all the same."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from trimtab.errors import StorageError
from trimtab.runs.checkpoints import list_checkpoints, verify
from trimtab.runs.record import read_attempts
from trimtab.trainers import LanguageModelTrainer
from trimtab.training.checkpoint import keeper


def test_a_save_stands_though_pruning_fails_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    text.write_text("what goes around comes around. " * 100)
    settings: dict[str, Any] = {
        "data": {"tokenizer": {"name": "bytes"}, "sequence_length": 16},
        "model": {"name": "decoder", "num_layers": 1, "hidden_size": 16, "num_heads": 2},
        "training": {"steps": 20, "micro_batch_size": 2, "device": "cpu", "compile": "off"},
        "evaluation": {"every": 20, "max_tokens": 256, "yardsticks": False, "samples": {"max_tokens": 0}},
        "checkpoint": {"every": 5, "keep_latest": 1, "keep_best": 0},
        "stopping": {"name": "none"},
    }
    prune, fails = keeper.prune, [OSError(errno.EIO, "Input/output error"), StorageError("record.jsonl")]

    def sometimes(*arguments: Any, **named: Any) -> Any:
        if fails:
            raise fails.pop(0)
        return prune(*arguments, **named)

    monkeypatch.setattr(keeper, "prune", sometimes)
    run = tmp_path / "run"
    with pytest.warns(UserWarning, match="older checkpoints stay until the next save"):
        result = LanguageModelTrainer(text, settings=settings, run=run, progress=False).fit()
    assert (result.status, fails) == ("finished", [])
    (left,) = list_checkpoints(run)
    assert left.step == 20
    assert verify(left.path) == []


def test_a_record_that_cannot_be_read_is_an_error_of_storage(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        read_attempts(tmp_path)
