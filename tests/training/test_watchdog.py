"""The watchdog: what counts as progress, what may take longer, and who is told. Hung processes: tests/faults."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bounded import Bounded, module_of, trainer_of
from rig import Rig
from torch import Tensor, nn

from trimtab import Trainer, load_config
from trimtab.config import TrainingConfig
from trimtab.events import ArtifactLogged, Event
from trimtab.runs import RunDirectory, checkpoints
from trimtab.training import Progress, watchdog
from trimtab.training.checkpoint import files, keeper
from trimtab.training.step import Step
from trimtab.training.watchdog import Freeze, Watchdog, on_freeze


def watched(dog: Watchdog, folder: Path, seconds: float, *, beats: Any = lambda: None) -> list[Freeze]:
    """What is told in `seconds`, in which `beats` is called every 20 ms."""
    told: list[Freeze] = []
    with dog.watching(folder, told.append):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            beats()
            time.sleep(0.02)
    return told


def test_what_goes_on_is_not_frozen_and_what_stands_is_told_once(tmp_path: Path) -> None:
    dog = Watchdog(0.2)
    dog.beat("step 1")
    assert watched(dog, tmp_path, 0.8, beats=lambda: dog.beat("step 1")) == []
    assert list(tmp_path.iterdir()) == []
    dog.beat("step 1")
    (told,) = watched(dog, tmp_path, 1.0)
    assert (told.what, told.stacks is not None and told.stacks.parent) == ("step 1", tmp_path)
    assert 0.2 < told.seconds < 0.5
    assert told.stacks is not None
    assert "test_watchdog.py" in told.stacks.read_text()
    assert "no progress for" in str(told)


def test_the_first_of_a_kind_may_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "FIRST_SECONDS", 0.0)
    dog = Watchdog(0.1)
    dog.beat("step 1", "step")
    assert watched(dog, tmp_path, 0.7) == []
    dog.beat("step 2", "step")
    assert [told.what for told in watched(dog, tmp_path, 0.7)] == ["step 2"]
    monkeypatch.setattr(watchdog, "FIRST_SECONDS", 60.0)
    dog.beat("judging", "evaluation")
    assert watched(dog, tmp_path, 1.2) == []


_MODEL = {"name": "decoder", "num_layers": 1, "hidden_size": 16, "num_heads": 2}


@pytest.mark.parametrize(
    "changes, most, attempts",
    [
        ({}, 8, [(1, True), (2, False), (3, False), (4, False), (5, False), (6, False)]),
        (
            {"model": _MODEL | {"freeze": ["embedding.*"], "unfreeze": {"embedding.*": 3}}},
            None,
            [(1, True), (2, False), (3, False), (4, True), (5, False), (6, False)],
        ),
        (
            {"training.accumulation_schedule": {"factors": [1, 2, 3], "lengths": [2, 2]}},
            8,
            [(1, True), (2, False), (3, True), (4, False), (5, False), (6, False)],
        ),
        ({}, 4, [(1, True), (2, False), (3, False), (4, False), (4, True), (5, False), (6, False)]),
    ],
)
def test_in_a_run_the_first_step_of_each_shape_may_compile(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    most: int | None,
    attempts: list[tuple[int, bool]],
) -> None:
    """Each with another optimizer, several micro-batches in place of one, or smaller ones where memory ran out."""
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    limits, found = [0.0], []
    beat, run = Watchdog.beat, Step.run

    def beats(self: Watchdog, *what: Any, **more: Any) -> None:
        beat(self, *what, **more)
        if more.get("lane", "training") == "training":
            limits.append(self._marks["training"].limit)

    def runs(self: Step, batches: Any, step: int, **more: Any) -> None:
        found.append((step, limits[-1] > 600.0))
        run(self, batches, step, **more)

    monkeypatch.setattr(Watchdog, "beat", beats)
    monkeypatch.setattr(Step, "run", runs)
    model = None if most is None else module_of(most, from_call=3)
    trainer_of(tmp_path, "run", changes, model=model).fit()
    assert found == attempts


class Normalizes(Bounded):
    def __init__(self) -> None:
        super().__init__(10**9, 257)
        self.norm = nn.BatchNorm1d(257)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        logits: Tensor = self.norm(super().forward(tokens_BT).transpose(1, 2)).transpose(1, 2)
        return logits


def pairs_in(folder: Path) -> dict[str, Any]:
    rows = folder / "rows.jsonl"
    texts = sorted({line.strip() for line in Path(json.__file__).read_text().splitlines() if len(line.split()) > 1})
    rows.write_text("".join(json.dumps({"text": text, "target": text.split()[0]}) + "\n" for text in texts))
    return {
        "data": {"source": {"name": "jsonl", "path": str(rows)}, "tokenizer": {"name": "bytes"}, "sequence_length": 32},
        "task": {"name": "seq2seq", "target_length": 8},
        "model": _MODEL | {"name": "encoder_decoder"},
    }


_EVALUATION = {"every": 3, "max_tokens": 256, "gap_tokens": 256, "batch_size": 4}


@pytest.mark.parametrize(
    "changes, samples, model, also",
    [
        (lambda folder: {}, {"prompts": ["a", "b"], "max_tokens": 2}, None, "writing samples"),
        (pairs_in, {"max_tokens": 2}, None, "writing answers"),
        (
            lambda folder: {"averaging": {"name": "ema"}},
            {"max_tokens": 0},
            Normalizes,
            "renewing the statistics of BatchNorm",
        ),
    ],
)
def test_in_an_evaluation_the_first_of_each_kind_may_compile_and_each_gives_signs_of_life(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: Callable[[Path], dict[str, Any]],
    samples: dict[str, Any],
    model: type[nn.Module] | None,
    also: str,
) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    told: dict[str, list[bool]] = {}
    beat = Watchdog.beat

    def beats(self: Watchdog, what: str, *kind: Any, **named: Any) -> None:
        beat(self, what, *kind, **named)
        if "step" not in what:
            told.setdefault(what, []).append(self._marks["training"].limit > 600.0)

    monkeypatch.setattr(Watchdog, "beat", beats)
    training = {"steps": 6, "micro_batch_size": 4, "threads": 1, "compile": "off"}
    settings = {
        "data": {
            "source": {"name": "text", "path": json.__file__},
            "tokenizer": {"name": "bytes"},
            "sequence_length": 16,
        },
        "model": _MODEL,
        "training": training,
        "evaluation": _EVALUATION | {"samples": samples},
        "stopping": {"name": "none"},
        **changes(tmp_path),
    }
    config = load_config(settings, environment={})
    Trainer(config, run=tmp_path / "run", model=None if model is None else model()).fit()
    assert told.keys() == {"judging the validation text", "judging a part of the training text", also}
    for what, is_long in told.items():
        assert is_long == [True] + [False] * (len(is_long) - 1), what
        assert len(is_long) >= 4, what


def test_a_whole_checkpoint_may_be_read_for_long_each_time_and_is_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "FIRST_SECONDS", 0.8)
    rig = Rig(tmp_path / "run", steps=6, save_every=3)
    rig.go()
    hashed: list[str] = []
    seconds, verify = 0.2, checkpoints.verify

    def slowly(folder: Path) -> list[str]:
        hashed.append(folder.name)
        time.sleep(seconds)
        return verify(folder)

    for module in (checkpoints, keeper, files):
        monkeypatch.setattr(module, "verify", slowly)
    dog = Watchdog(0.07)
    rig.keeper._watchdog = dog
    told: list[Freeze] = []
    with dog.watching(tmp_path, told.append):
        for _ in range(2):
            dog.beat("step 6")
            assert rig.keeper.can_roll_back(5)
            rig.keeper.announce_rollback(5, {})
            assert rig.keeper.roll_back() == 3
            assert rig.keeper.restore_best() == 6
        assert (told, [name[-1] for name in hashed]) == ([], ["3", "3", "6"] * 2)
        time.sleep(0.25)
    assert [freeze.what for freeze in told] == ["step 3"], "and what comes after may not"
    seconds = 1.2
    told.clear()
    with dog.watching(tmp_path, told.append):
        rig.keeper.can_roll_back(5)
    assert [freeze.what for freeze in told] == ["reading checkpoints"], "for long is not for ever"


def test_lanes_are_watched_apart_and_one_that_rests_is_not(tmp_path: Path) -> None:
    dog = Watchdog(0.2)
    dog.beat("saving step 1", lane="saving")
    told = watched(dog, tmp_path, 0.6, beats=lambda: dog.beat("step 2"))
    assert [freeze.what for freeze in told] == ["saving step 1"], "training that goes on hides no save that hangs"
    dog.beat("step 3")
    dog.rest("training")
    assert watched(dog, tmp_path, 0.6, beats=lambda: dog.beat("saving", lane="saving")) == []


def test_without_seconds_nothing_is_watched(tmp_path: Path) -> None:
    assert TrainingConfig().watchdog_seconds == 600.0
    dog, before = Watchdog(None), threading.active_count()
    dog.beat("step 1")
    with dog.watching(tmp_path, lambda freeze: None):
        assert threading.active_count() == before
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_is_not_only_ours_is_warned_and_goes_on(tmp_path: Path) -> None:
    events: list[Event] = []
    run = RunDirectory.create_at(tmp_path / "run")
    frozen = on_freeze(run, Progress(step=7), events.append, ends_process=False)
    with pytest.warns(UserWarning, match="no progress for 12s in step 8, at data/loader.py:5 in take"):
        frozen(Freeze("step 8", 12.0, "data/loader.py:5 in take", run.artifacts / "stacks-1.txt"))
    (event,) = events
    assert isinstance(event, ArtifactLogged)
    assert (event.step, event.name, event.path) == (7, "stacks", "artifacts/stacks-1.txt")


def test_a_record_that_hangs_keeps_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_LAST_WORDS_SECONDS", 0.1)
    released = threading.Event()
    run = RunDirectory.create_at(tmp_path / "run")
    frozen = on_freeze(run, Progress(), lambda event: released.wait(10) and None, ends_process=False)
    begun = time.monotonic()
    with pytest.warns(UserWarning, match="no progress"):
        frozen(Freeze("step 1", 1.0, "", None))
    released.set()
    assert time.monotonic() - begun < 5
