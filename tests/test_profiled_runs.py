"""Profiles of real runs: what they write, that they change nothing, and that they harm nothing."""

from __future__ import annotations

import gzip
import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtab import LanguageModelTrainer
from trimtab.events import AlertRaised, Event, StepsEnded
from trimtab.runs import RunDirectory, read_record
from trimtab.runs.profiles import list_profiles, render_profiles
from trimtab.runs.summary import render, summarize
from trimtab.training import profiler

SETTINGS: dict[str, Any] = {
    "data.tokenizer": {"name": "bytes"},
    "data.sequence_length": 32,
    "model": {"name": "decoder", "num_layers": 1, "hidden_size": 32, "num_heads": 2, "dropout": {"residual": 0.1}},
    "training.steps": 12,
    "training.micro_batch_size": 4,
    "training.accumulation": 2,
    "evaluation.every": 6,
    "evaluation.max_tokens": 512,
    "evaluation.gap_tokens": 0,
    "evaluation.samples.prompts": [],
    "evaluation.yardsticks": False,
    "logging.every": 4,
    "training.precision": {"name": "fp32"},
    "averaging": {"name": "ema", "decay": 0.9},
}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "heapq.py").write_text((Path(os.__file__).parent / "heapq.py").read_text())
    return folder


def train(text: Path, run: Path, settings: dict[str, Any], monitors: Any = ()) -> Any:
    trainer = LanguageModelTrainer(
        text, settings={**SETTINGS, **settings}, run=run, progress=False, monitors=list(monitors)
    )
    trainer.fit()
    return trainer


def artifacts_of(run: Path) -> list[dict[str, Any]]:
    return [line for line in read_record(run / "record.jsonl") if line["event"] == "ArtifactLogged"]


def test_a_profile_says_where_the_time_and_the_memory_went_and_changes_no_bit(text: Path, tmp_path: Path) -> None:
    profiled = train(text, tmp_path / "profiled", {"profile.steps": "5..7", "hardware.split_every": 1})
    plain = train(text, tmp_path / "plain", {"hardware.split_every": 0, "hardware.every_seconds": 0.0})
    for one, other in zip(profiled.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, other)

    folder = tmp_path / "profiled/artifacts/profiles/step-00000005"
    assert sorted(path.name for path in folder.iterdir()) == [
        "memory.json",
        "operators.txt",
        "profile.json",
        "rank0.pt.trace.json.gz",
    ]
    (found,) = list_profiles(RunDirectory(tmp_path / "profiled"))
    assert (found["first_step"], found["last_step"]) == (5, 7)
    assert {"data", "host_to_device", "forward", "backward", "optimizer", "probe", "other"} == set(found["parts"])
    assert sum(found["parts"].values()) == pytest.approx(found["step_seconds"], rel=0.3)
    # Two micro-batches a step: query, key, value in one, output, two of the feed-forward, and the head.
    calls = {one["name"]: one["calls"] for one in found["operators"]}
    assert calls["aten::mm"] + calls.get("aten::addmm", 0) >= 2 * 5 * 3
    assert found["bottleneck"]["text"] in [
        line["text"].partition(": ")[2] for line in artifacts_of(tmp_path / "profiled")
    ]
    assert "bound by" in render_profiles([found], "RUN")
    report = (tmp_path / "profiled/report.html").read_text()
    assert f"Profiled, steps 5 to 7: {found['bottleneck']['code']}" in report
    assert "Of a step: " in report
    shown = render(summarize(RunDirectory(tmp_path / "profiled")))
    assert "  machine     MFU " in shown
    assert "backward " in shown

    events = json.loads(gzip.decompress((folder / "rank0.pt.trace.json.gz").read_bytes()))["traceEvents"]
    assert sum(event["name"] == "trimtab: forward" for event in events) == 2 * 3

    memory = json.loads((folder / "memory.json").read_text())
    model = profiled.model
    weights = sum(parameter.numel() for parameter in model.parameters()) * 4
    for name, copies in (("weights", 1), ("gradients", 1), ("optimizer", 2), ("averages", 1)):
        assert memory["categories"][name] == pytest.approx(copies * weights, rel=0.35), name
    # At the least the logits of a micro-batch.
    assert memory["categories"]["activations"] > 4 * 32 * 257 * 4
    assert memory["peak_bytes"] == sum(memory["categories"].values())


def test_a_profile_costs_no_step_its_time(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    def slow(*arguments: Any) -> list[dict[str, Any]]:
        time.sleep(1.0)
        return []

    monkeypatch.setattr(profiler, "_write_trace", slow)
    seen: list[Event] = []

    class Watch:
        def observe(self, event: Event) -> None:
            seen.append(event)

    train(text, tmp_path / "run", {"profile.steps": "5"}, [Watch()])
    windows = [event for event in seen if isinstance(event, StepsEnded)]
    assert max(float(window.per_step["step_seconds"][1:].max(initial=0.0)) for window in windows) < 1.0
    ended = read_record(tmp_path / "run/record.jsonl")[-1]
    assert ended["time_split"]["profile"] > 1.0


def test_a_file_asks_for_a_profile(text: Path, tmp_path: Path) -> None:
    class Asks:
        def observe(self, event: Event) -> None:
            if isinstance(event, StepsEnded) and event.first_step == 1:
                (tmp_path / "run/PROFILE").write_text("2\n")

    train(text, tmp_path / "run", {"profile.memory": False, "profile.operators": 3}, [Asks()])
    (found,) = list_profiles(RunDirectory(tmp_path / "run"))
    assert found["last_step"] - found["first_step"] == 1
    assert found["memory"] is None
    assert len(found["operators"]) == 3
    assert not (tmp_path / "run/PROFILE").exists()


def test_one_that_cannot_be_written_is_an_alert_and_the_run_goes_on(text: Path, tmp_path: Path) -> None:
    run, seen = tmp_path / "run", []

    class Watch:
        def observe(self, event: Event) -> None:
            seen.append(event)
            if isinstance(event, StepsEnded) and event.first_step == 1:
                (run / "artifacts").mkdir(exist_ok=True)
                (run / "artifacts/profiles").write_text("in the way")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(text, run, {"profile.steps": "5..6"}, [Watch()])
    assert any("the profile from step 5 on failed" in str(one.message) for one in caught)
    assert [event.kind for event in seen if isinstance(event, AlertRaised)] == ["write_failed"]


def test_a_stretch_that_the_run_ends_in_is_not_written(text: Path, tmp_path: Path) -> None:
    class Asks:
        def observe(self, event: Event) -> None:
            if isinstance(event, StepsEnded) and event.first_step == 1:
                (tmp_path / "run/PROFILE").write_text("100")

    train(text, tmp_path / "run", {}, [Asks()])
    assert list_profiles(RunDirectory(tmp_path / "run")) == []
    # The next run of this process may be profiled.
    train(text, tmp_path / "next", {"profile.steps": "3"})
    assert len(list_profiles(RunDirectory(tmp_path / "next"))) == 1
