"""Real runs do what their controllers decide, and go on to the same bits after a kill."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trimtab import LanguageModelTrainer, Trainer, load_config
from trimtab.events import Adjust, DecisionTaken, Event, StepsEnded
from trimtab.model.dropout import Dropout
from trimtab.runs.files import read_json

SETTINGS: dict[str, Any] = {
    "data.tokenizer": {"name": "bytes"},
    "data.sequence_length": 32,
    "model": {"name": "decoder", "num_layers": 1, "hidden_size": 32, "num_heads": 2},
    "optimizer.learning_rate": 5e-3,
    "schedule": {"name": "constant", "warmup": 0},
    "training.steps": 40,
    "training.micro_batch_size": 8,
    "evaluation.every": 10,
    "evaluation.max_tokens": 2048,
    "evaluation.gap_tokens": 1024,
    "evaluation.samples.max_tokens": 0,
    "stopping": {"name": "none"},
    "lint.allow": [],
}


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "text"
    folder.mkdir()
    for name in ("heapq.py", "bisect.py", "queue.py"):
        (folder / name).write_text((Path(os.__file__).parent / name).read_text())
    return folder


class Watch:
    """Remembers events, and at the end of a window of `leaves_at` kills the run."""

    def __init__(self, leaves_at: int | None = None) -> None:
        self.events: list[Event] = []
        self.leaves_at = leaves_at

    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded) and event.last_step == self.leaves_at:
            raise KeyboardInterrupt
        self.events.append(event)

    def adjusted(self) -> dict[str, list[tuple[int, float, str]]]:
        found: dict[str, list[tuple[int, float, str]]] = {}
        for event in self.events:
            if isinstance(event, DecisionTaken) and isinstance(event.decision, Adjust):
                entry = (event.step, event.decision.value, event.outcome)
                found.setdefault(event.decision.name, []).append(entry)
        return found

    def per_step(self, name: str) -> Any:
        return np.concatenate([event.per_step[name] for event in self.events if isinstance(event, StepsEnded)])


def train(text: Path, run: Path, settings: Mapping[str, Any], leaves_at: int | None = None) -> tuple[Any, Watch]:
    watch = Watch(leaves_at)
    trainer = LanguageModelTrainer(text, settings={**SETTINGS, **settings}, run=run, progress=False, monitors=[watch])
    trainer.fit()
    return trainer, watch


def same_bits_after_a_kill(
    text: Path, tmp_path: Path, settings: Mapping[str, Any], leaves_at: int, goes_on_from: int
) -> Watch:
    whole, watch = train(text, tmp_path / "whole", settings)
    with pytest.raises(KeyboardInterrupt):
        train(text, tmp_path / "killed", settings, leaves_at)
    again, rest = train(text, tmp_path / "killed", settings)
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    later = {name: [e for e in entries if e[0] > goes_on_from] for name, entries in watch.adjusted().items()}
    assert {name: entries for name, entries in later.items() if entries} == rest.adjusted()
    return watch


def test_a_plateau_lowers_the_rate_at_the_evaluation_that_finds_it(text: Path, tmp_path: Path) -> None:
    plateau = {"name": "plateau", "patience": 1, "threshold": 100.0, "threshold_mode": "absolute", "minimum": 0.2}
    watch = same_bits_after_a_kill(text, tmp_path, {"control.learning_rate": plateau}, 30, 20)
    assert watch.adjusted() == {"learning_rate": [(20, 0.5, "taken"), (30, 0.25, "taken"), (40, 0.2, "taken")]}
    rates = watch.per_step("learning_rate") / 5e-3
    assert rates.tolist() == pytest.approx([1.0] * 20 + [0.5] * 10 + [0.25] * 10)


def test_an_unsteady_run_is_calmed(text: Path, tmp_path: Path) -> None:
    """With a threshold that everything is above, every stretch from the ninth value on is high."""
    unsteadiness = {
        "name": "unsteadiness", "every": 4, "memory": 8, "deviations": 1e-6, "patience": 1, "factor": 0.9,
        "cooldown": 0, "signal": "either",
    }  # fmt: skip
    settings = {"control.learning_rate": unsteadiness, "training.steps": 80, "evaluation.every": 20}
    watch = same_bits_after_a_kill(text, tmp_path, settings, 60, 40)
    taken = watch.adjusted()["learning_rate"]
    assert len(taken) >= 3
    assert {outcome for _, _, outcome in taken} == {"taken"}, "two windows of one boundary do not overrule each other"
    assert len({step for step, _, _ in taken}) < len(taken)
    factors = [value for _, value, _ in taken]
    powers = [math.log(value) / math.log(0.9) for value in factors]
    assert powers == pytest.approx([round(power) for power in powers]), "a window may hold several stretches"
    assert powers == sorted(powers)
    rates = watch.per_step("learning_rate") / 5e-3
    for step, value in {step: value for step, value, _ in taken}.items():
        if step < 80:
            assert rates[step] == pytest.approx(value)


def test_regularization_follows_the_gap(text: Path, tmp_path: Path) -> None:
    """A gap that is always too wide raises all three, each by its own decision, up to the bound."""
    settings = {
        "control.regularization": {
            "name": "gap", "high": -9.0, "low": -10.0, "patience": 1, "cooldown": 0, "factor": 1.5, "highest": 2.0
        },
        "model": SETTINGS["model"] | {"dropout": {"residual": 0.1, "embedding": 0.2}},
        "objective": {"name": "cross_entropy", "label_smoothing": 0.1},
    }  # fmt: skip
    watch = same_bits_after_a_kill(text, tmp_path, settings, 30, 20)
    expected = [(10, 1.5, "taken"), (20, 2.0, "taken")]
    assert watch.adjusted() == dict.fromkeys(["dropout", "weight_decay", "label_smoothing"], expected)
    plain, _ = train(text, tmp_path / "plain", {**settings, "control.regularization": {"name": "none"}})
    steered, _ = train(text, tmp_path / "steered", settings)
    pairs = zip(plain.model.parameters(), steered.model.parameters(), strict=True)
    assert not any(torch.equal(one, other) for one, other in pairs)
    dropouts = [module for module in steered.model.modules() if isinstance(module, Dropout) and module.rate]
    assert {float(dropout.factor) for dropout in dropouts} == {2.0}


def test_dropout_and_batch_follow_their_schedules(text: Path, tmp_path: Path) -> None:
    """The batch doubles at step 16, dropout rises from none at step 20, times what a controller gives."""
    settings = {
        "model": SETTINGS["model"] | {"dropout": {"residual": 0.1}},
        "dropout_schedule": {"name": "piecewise", "warmup": 0, "levels": [0.0, 1.0], "lengths": [0.5], "join": 10},
        "training.accumulation_schedule": {"factors": [1, 2, 3], "lengths": [15, 0.5]},
        "control.regularization": {
            "name": "gap", "settings": ["dropout"], "high": -9.0, "low": -10.0, "patience": 1, "cooldown": 0,
            "highest": 1.25,
        },
    }  # fmt: skip
    watch = same_bits_after_a_kill(text, tmp_path, settings, 30, 20)
    tokens = watch.per_step("tokens")
    # A few less where the text ends with a short sequence.
    assert np.ceil(tokens / (8 * 32)).tolist() == [1] * 15 + [2] * 20 + [3] * 5
    seen: list[float] = []

    class Looks:
        def observe(self, event: Event) -> None:
            if isinstance(event, StepsEnded):
                sites = [m for m in trainer.model.modules() if isinstance(m, Dropout) and m.rate]
                seen.append(float(sites[0].factor))

    source = {"data.source": {"name": "text", "path": str(text)}, "logging.every": 1}
    overrides = [f"{name}={json.dumps(value)}" for name, value in {**SETTINGS, **settings, **source}.items()]
    trainer = Trainer(load_config("gpt-1m", overrides), run=tmp_path / "looks", monitors=[Looks()])
    trainer.fit()
    assert seen[0] == 0.0
    assert max(seen) == 1.25, "one from the schedule, times the controller's"
    facts = read_json(tmp_path / "looks" / "facts.json")
    assert facts["planned_tokens"] == pytest.approx(tokens.sum(), rel=0.03)
