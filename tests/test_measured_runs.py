"""What runs tell of their machine and pace, and that telling it changes nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trimtab import LanguageModelTrainer
from trimtab.config import load_config
from trimtab.errors import ConfigError
from trimtab.planning import count_model
from trimtab.runs import History
from trimtab.runs.files import read_json

SETTINGS: dict[str, Any] = {
    "data.tokenizer": {"name": "bytes"},
    "data.sequence_length": 32,
    "model": {"name": "decoder", "num_layers": 1, "hidden_size": 32, "num_heads": 2, "dropout": {"residual": 0.1}},
    "training.steps": 24,
    "training.micro_batch_size": 8,
    "evaluation.every": 12,
    "evaluation.max_tokens": 512,
    "evaluation.gap_tokens": 0,
    "evaluation.samples.prompts": [],
    "evaluation.yardsticks": False,
    "logging.every": 4,
    "gradients.clip.threshold": 0.5,
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


def train(text: Path, run: Path, **settings: Any) -> Any:
    changed = {name.replace("__", "."): value for name, value in settings.items()}
    trainer = LanguageModelTrainer(text, settings={**SETTINGS, **changed}, run=run, progress=False)
    trainer.fit()
    return trainer


def test_a_run_tells_of_its_pace_and_machine_and_its_weights_are_the_same(text: Path, tmp_path: Path) -> None:
    trainers = [
        train(text, tmp_path / "all", hardware__every_seconds=0.05, hardware__split_every=1),
        train(text, tmp_path / "none", hardware__every_seconds=0.0, hardware__split_every=0),
    ]
    for one, other in zip(*(trainer.model.parameters() for trainer in trainers), strict=True):
        assert torch.equal(one, other)
    measured, blind = (History.read(tmp_path / name / "record.jsonl") for name in ("all", "none"))
    for name in ("forward", "backward", "optimizer", "probe", "host_to_device", "logging"):
        series = measured.get(f"time/{name}_seconds")
        assert series is not None
        assert np.nanmin(series.mean) > 0, name
    for name in ("cpu_percent", "process_memory_bytes", "disk_free_bytes"):
        series = measured.get(f"hardware/{name}")
        assert series is not None, name
        assert 1 <= len(series) <= 8
        assert blind.get(f"hardware/{name}") is None
    assert blind.get("time/forward_seconds") is None

    before, after = (measured.get(name) for name in ("grad_norm", "grad_norm_clipped"))
    assert before is not None
    assert after is not None
    assert after.mean == pytest.approx(np.minimum(before.mean, 0.5), rel=1e-5)
    assert before.mean.max() > 0.5

    # Utilization, calculated anew from what the record says of the last window.
    utilization, rate = (measured.get(name).mean[-1] for name in ("mfu", "tokens_per_second"))  # type: ignore[union-attr]
    plan = read_json(tmp_path / "all/plan.json")
    config = load_config(str(tmp_path / "all/config.yaml"))
    per_token = count_model(config).training_flops(square=True) / 32
    assert utilization == pytest.approx(rate * per_token / plan["peak"]["chosen"], rel=0.02)
    assert plan["peak"]["measured"]
    assert 1e9 < plan["peak"]["chosen"] < 1e14


def test_the_peak_that_is_declared_or_was_measured_is_kept(text: Path, tmp_path: Path) -> None:
    train(text, tmp_path / "run", training__steps=12, hardware__peak_flops=2e12)
    assert read_json(tmp_path / "run/plan.json")["peak"]["chosen"] == 2e12
    from trimtab.training.peak import choose_peak

    cpu = torch.device("cpu")
    first = choose_peak(None, cpu, "fp32", torch.float32, None)
    assert choose_peak(None, cpu, "fp32", torch.float32, first) == first
    assert choose_peak(None, cpu, "bf16", torch.float32, first)["precision"] == "bf16"


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("10..5", "lies before the first"),
        ("0..5", "a range of steps"),
        ("1..500", "at most 200 steps"),
        ("90..110", "reaches beyond the last of training.steps 100"),
        (True, "a range of steps"),
    ],
)
def test_steps_to_profile_are_checked(steps: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config("demo", ["training.steps=100", f"profile.steps={str(steps).lower()}"])


def test_a_single_step_is_a_range() -> None:
    assert load_config("demo", ["profile.steps=7"]).profile.steps == "7"


def test_what_is_looked_at_may_differ_when_a_run_goes_on() -> None:
    from trimtab.config import effective
    from trimtab.runs.drift import drift

    was, now = (
        {f"config.{key}": value for key, value in effective(load_config("demo", settings)).items()}
        for settings in ([], ["hardware.every_seconds=1", "profile.steps=3..4"])
    )
    assert was != now
    assert drift(was, now) == []
