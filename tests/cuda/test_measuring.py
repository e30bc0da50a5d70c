"""The split of time, utilization, the GPU's readings and profiles, on a GPU. Under a minute:

python -m pytest -q tests/cuda/test_measuring.py
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtab.config import load_config
from trimtab.events import Event, RunStarted, StepsEnded
from trimtab.runs import RunDirectory
from trimtab.runs.machine import describe_machine, describe_parts, means_of
from trimtab.runs.profiles import list_profiles, render_profiles
from trimtab.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

SETTINGS = [
    "data.source={name: text, path: TEXT}",
    "data.tokenizer={name: bytes}",
    "data.sequence_length=256",
    "model={name: decoder, num_layers: 4, hidden_size: 512, num_heads: 8, dropout: {residual: 0.1}}",
    "optimizer={name: adamw, learning_rate: 1e-3}",
    "training.steps=60",
    "training.micro_batch_size=16",
    "training.precision.name=bf16",
    "training.compile=off",
    "evaluation={every: 60, gap_tokens: 0, max_tokens: 4096, yardsticks: false, samples: {prompts: []}}",
    "hardware={every_seconds: 0.2, split_every: 1}",
]


class Seen:
    def __init__(self) -> None:
        self.windows: list[StepsEnded] = []
        self.notes: list[str] = []

    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded):
            self.windows.append(event)
        elif isinstance(event, RunStarted):
            self.notes += event.facts["notes"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    source = Path(os.__file__).parent
    for name in ("argparse.py", "typing.py", "inspect.py", "ast.py"):
        (folder / name).write_text((source / name).read_text())
    return folder


def fit(text: Path, run: Path, *settings: str) -> tuple[Any, Seen]:
    seen = Seen()
    config = load_config(None, [line.replace("TEXT", str(text)) for line in SETTINGS] + list(settings))
    trainer = Trainer(config, run=run, monitors=[seen])
    trainer.fit()
    return trainer.model, seen


@pytest.mark.parametrize("capture", ["auto", "off"])
def test_the_parts_of_a_step_are_its_time(text: Path, tmp_path: Path, capture: str) -> None:
    _, seen = fit(text, tmp_path / "run", f"training.capture={capture}", "training.accumulation=2")
    means = means_of(seen.windows)
    print(describe_parts(means), "|", describe_machine(means))
    parts = {name[5:-8] for name in means if name.startswith("time/")} - {"logging"}
    expected = {"host_to_device", "forward", "backward", "optimizer", "probe"}
    assert parts == ({"accumulate", "update"} if capture == "auto" else expected)
    whole = sum(means[f"time/{part}_seconds"] for part in parts)
    assert 0.5 * means["step_seconds"] < whole < 1.1 * means["step_seconds"]
    assert 0.0 < means["mfu"] < 1.0
    plan = json.loads((tmp_path / "run/plan.json").read_text())
    assert plan["capture"]["chosen"] == (capture == "auto")
    assert plan["peak"]["chosen"] > 1e13


def test_the_gpu_is_read_or_one_line_says_why_not(text: Path, tmp_path: Path) -> None:
    _, seen = fit(text, tmp_path / "run", "training.steps=300", "evaluation.every=300")
    means = means_of(seen.windows)
    lines = [note for note in seen.notes if "are not read" in note]
    if importlib.util.find_spec("pynvml") is None:
        assert len(lines) == 1
        assert "pip install 'trimtab[gpu]'" in lines[0]
        return
    print(lines, {name: value for name, value in means.items() if "gpu" in name or "_wh" in name})
    assert lines == []
    assert 10 < means["hardware/gpu0/power_watts"] < 1500
    assert means["hardware/gpu0/memory_bytes"] > torch.cuda.memory_reserved() / 2
    assert 0 < means["hardware/energy_wh"] < 10
    assert means["hardware/tokens_per_wh"] > 0


@pytest.mark.parametrize("capture", ["auto", "off"])
def test_a_profile_changes_no_bit_and_says_what_a_step_is_bound_by(text: Path, tmp_path: Path, capture: str) -> None:
    settings = (f"training.capture={capture}", "training.deterministic=true")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    profiled, _ = fit(text, tmp_path / "profiled", *settings, "profile.steps=30..39")
    plain, _ = fit(text, tmp_path / "plain", *settings, "hardware.split_every=0")
    for one, other in zip(profiled.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)
    profiles = list_profiles(RunDirectory(tmp_path / "profiled"))
    print(render_profiles(profiles, "RUN"))
    (found,) = profiles
    assert found["device"] == "cuda"
    assert found["kinds"]["matmul"] > 0
    assert 0 < found["busy_seconds"] <= 1.1 * found["step_seconds"]
    assert found["bottleneck"]["code"] in (
        "input-bound", "launch-bound", "optimizer-heavy", "matmul-bound", "memory-bound", "mixed"
    )  # fmt: skip
    assert found["counters"] or any("counters" in note for note in found["notes"])
    memory = found["memory"]
    weights = sum(parameter.numel() for parameter in profiled.parameters())
    if capture == "off":
        assert {"forward", "backward", "optimizer"} <= set(found["parts"])
        assert memory["categories"]["weights"] >= 4 * weights
        assert memory["categories"]["optimizer"] == pytest.approx(8 * weights, rel=0.2)
        assert memory["categories"]["activations"] > 0
        # A window may take several lines.
        highest = max(line.values.get("memory_bytes", 0.0) for line in seen_of(tmp_path / "profiled"))
        assert memory["peak_bytes"] <= 1.02 * highest
        assert memory["peak_bytes"] > 0.5 * highest


def seen_of(run: Path) -> list[StepsEnded]:
    from trimtab.runs import read_record
    from trimtab.runs.record import event_from_json

    events = [event_from_json(line) for line in read_record(run / "record.jsonl")]
    return [event for event in events if isinstance(event, StepsEnded)]
