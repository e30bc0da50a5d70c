"""Goodput of a real run of two attempts: told at its end, shown, and in the report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from trimtab.events import ArtifactLogged, Event, StepsEnded
from trimtab.runs import RunDirectory
from trimtab.runs.goodput import CAUSES, describe_goodput, goodput_of
from trimtab.runs.summary import render, summarize
from trimtab.trainers import LanguageModelTrainer


class Watches:
    """Keeps what it is told, and ends the process's attempt at a step, as a kill would."""

    def __init__(self, ends_after: int | None = None) -> None:
        self.events: list[Event] = []
        self.ends_after = ends_after

    def observe(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, StepsEnded) and self.ends_after is not None and event.last_step >= self.ends_after:
            raise KeyboardInterrupt


SETTINGS: dict[str, Any] = {
    "data": {"tokenizer": {"name": "bytes"}, "sequence_length": 16},
    "model": {"name": "decoder", "num_layers": 1, "hidden_size": 16, "num_heads": 2},
    "training": {"steps": 40, "micro_batch_size": 2, "device": "cpu", "compile": "off"},
    "evaluation": {"every": 20, "max_tokens": 256, "yardsticks": False, "samples": {"max_tokens": 0}},
    "checkpoint": {"every": 12},
    "logging": {"every": 5},
}


def test_both_attempts_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    text.write_text("what goes around comes around, and so on and so on. " * 100)
    run = RunDirectory(tmp_path / "run")

    def fit(watches: Watches) -> None:
        LanguageModelTrainer(text, settings=SETTINGS, run=run.path, progress=False, monitors=[watches]).fit()

    begun = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        fit(Watches(ends_after=20))
    watches = Watches()
    fit(watches)
    seconds = time.perf_counter() - begun
    found = goodput_of(run)
    assert found is not None
    assert found.attempts == 2
    assert set(found.seconds) == set(CAUSES)
    assert sum(found.seconds.values()) == pytest.approx(found.elapsed_seconds)
    assert found.seconds["redone"] > 0
    assert min(found.seconds[cause] for cause in ("start", "evaluation", "productive", "checkpoint")) > 0
    assert found.elapsed_seconds + found.down_seconds <= seconds + 0.01
    told = next(event for event in watches.events if isinstance(event, ArtifactLogged) and event.name == "goodput")
    assert told.text == describe_goodput(found.to_json())
    assert told.text in render(summarize(run))
    page = run.report.read_text()
    assert "redone" in page
    assert "Down between attempts, not counted above" in page
