"""`trimtab plan`: of configurations, presets and runs; without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.config import dump_config, load_config
from trimtab.errors import UsageError
from trimtab.events import RunStarted, StepsEnded
from trimtab.planning import DEVICES, command, devices, predict
from trimtab.planning.command import planned
from trimtab.planning.reached import reached_by
from trimtab.runs import Recorder, RunDirectory
from trimtab.runs.files import write_json


def run_of(path: Path, seconds: list[float], plan: dict[str, Any], gpu: str | None = None) -> RunDirectory:
    run = RunDirectory.create_at(path)
    run.config.write_text(dump_config(load_config("gpt-1m", environment={})))
    write_json(run.plan, plan)
    write_json(run.environment, {"hardware": {"gpu": gpu}})
    recorder = Recorder.open(run, branch=0)
    recorder.record(RunStarted(0, 1, 0, None, len(seconds), {}))
    for index, each in enumerate(seconds, 1):
        values = {"step_seconds": each, "data_seconds": each / 10, "tokens": 4096.0}
        series = {name: np.array([value]) for name, value in values.items()}
        recorder.record(StepsEnded(index, index, series, {"memory_bytes": 5e8}))
    recorder.close()
    return run


def test_the_command_answers_without_torch() -> None:
    code = (
        "import sys; sys.argv = ['trimtab', 'plan', 'gpt2', '--device', 'h100', '--json']\n"
        "from trimtab.cli import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["parameters"]["total"] == 124_439_808
    assert facts["tokens_per_step"] == 491_520
    assert facts["fits"] is True
    assert [one["code"] for one in facts["advice"]] == ["narrow-heads-on-cuda"]


def test_a_time_is_told_as_an_estimate_with_an_interval_that_a_busy_machine_widens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quiet = replace(DEVICES["cpu"], cores=2)
    for device, longest in (
        (quiet, 1.25),
        (replace(quiet, busy_cores=1.0), 2.5),
        (replace(quiet, busy_cores=9.0), 5.0),
    ):
        monkeypatch.setattr(command, "find_device", lambda _, device=device: device)
        answer = planned("gpt-1m", [], model=None, device="this", batch=None)
        whole = answer.prediction.training_seconds
        assert answer.facts["training_interval"] == pytest.approx([0.75 * whole, longest * whole])
        assert "estimated (" in answer.text
        assert ("busy       other programs take" in answer.text) is (longest > 1.25)


def test_a_teacher_is_said_to_be_left_out() -> None:
    asked = "objective={distillation: {teacher: runs/large}}"
    answer = planned("gpt-1m", [asked], model=None, device="h100", batch=None)
    assert "left out   the teacher of objective.distillation" in answer.text
    assert len(answer.facts["left_out"]) == 1
    plain = planned("gpt-1m", [], model=None, device="h100", batch=None)
    assert "teacher" not in plain.text
    assert plain.facts["left_out"] == []


def test_text_says_what_it_rests_on_and_what_to_lower() -> None:
    answer = planned("gpt2", ["training.accumulation=1"], model=None, device="rtx4090", batch=480)
    assert "does not fit: 21.6 GB can be used; training.micro_batch_size=" in answer.text
    assert "nothing was measured on it" in answer.text
    assert "at 450 W" in answer.text
    assert answer.after == ("check", "gpt2", "training.micro_batch_size=480", "training.accumulation=1")
    assert answer.facts["that_fits"]["fits"]
    huge = "model={num_layers: 96, hidden_size: 12288, num_heads: 96}"
    assert "one sequence at a time takes" in planned("gpt2", [huge], model=None, device="h100", batch=None).text


def test_the_model_of_a_preset_in_place_of_the_configurations() -> None:
    mixed = planned("demo", [], model="gpt2-medium", device="h100", batch=None)
    alone = planned(None, ["training.steps=9"], model="gpt2-medium", device="h100", batch=4)
    assert mixed.prediction.counts.total_parameters == alone.prediction.counts.total_parameters == 354_823_168
    assert mixed.prediction.steps == 1400
    assert alone.prediction.steps == 9
    assert alone.prediction.micro_batch_size == 4
    without_source = planned("training.steps=9", [], model="gpt2-medium", device="h100", batch=4)
    assert without_source.facts == alone.facts


def test_what_a_run_reached_stands_beside_its_prediction(tmp_path: Path) -> None:
    plan = {
        "device": "cuda:0",
        "compile": {"chosen": False},
        "micro_batch": {"chosen": 8, "accumulation": 2},
    }
    run = run_of(tmp_path / "run", [9.0, 8.0, 0.2, 0.1, 0.3, 0.2, 0.2], plan, "NVIDIA H100 80GB HBM3")
    reached = reached_by(run)
    assert reached.num_steps == 5
    assert reached.step_seconds == pytest.approx(0.2)
    assert reached.data_seconds == pytest.approx(0.02)
    assert reached.tokens_per_second == pytest.approx(4096 / 0.2)
    answer = planned(str(run.path), [], model=None, device=None, batch=None)
    assert answer.prediction.device.name == "h100"
    assert answer.prediction.micro_batch_size == 8
    assert not answer.prediction.ways.compiled
    expected = predict(load_config("gpt-1m", environment={}), DEVICES["h100"], compiled=False, micro_batch_size=8)
    assert answer.facts["reached"]["times_the_prediction"] == pytest.approx(0.2 / expected.step_seconds)
    assert "waiting for data 10 %" in answer.text
    assert "200 ms a step, median of 5" in answer.text


def test_too_short_a_run_and_settings_beside_one_are_refused(tmp_path: Path) -> None:
    run = run_of(tmp_path / "short", [1.0, 1.0, 1.0], {"device": "cpu"})
    with pytest.raises(UsageError, match="its first steps alone say nothing"):
        planned(str(run.path), [], model=None, device="cpu", batch=None)
    with pytest.raises(UsageError, match="is a run, whose settings are what they were"):
        planned(str(run.path), ["training.steps=3"], model=None, device=None, batch=None)
    gpu = run_of(tmp_path / "gpu", [1.0] * 9, {"device": "cuda:0"}, "NVIDIA T4")
    with pytest.raises(UsageError, match="ceilings of NVIDIA T4 are not known"):
        planned(str(gpu.path), [], model=None, device=None, batch=None)


def test_nothing_to_plan_and_an_unknown_device_are_refused() -> None:
    with pytest.raises(UsageError, match="nothing to plan"):
        planned(None, [], model=None, device="h100", batch=None)
    with pytest.raises(UsageError, match="h100, h200, a100, rtx4090, cpu or this"):
        planned("gpt2", [], model=None, device="h900", batch=None)


def test_this_machine_is_a_gpu_by_its_name_or_a_processor_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_first_gpu", lambda: ("NVIDIA A100-SXM4-40GB", 40e9, 350.0))
    found = devices.find_device("this")
    assert (found.name, found.memory_bytes, found.watts) == ("a100", 40e9, 350.0)
    assert found.products == DEVICES["a100"].products
    monkeypatch.setattr(devices, "_first_gpu", lambda: ("Tesla K80", 12e9, None))
    with pytest.raises(UsageError, match="ceilings of Tesla K80 are not known"):
        devices.find_device("this")
    monkeypatch.setattr(devices, "_first_gpu", lambda: None)
    assert all(speed > 1e8 for speed in devices._numpy_speeds())
    monkeypatch.setattr(devices, "_numpy_speeds", lambda: (2 * 128e9, 50e9))
    monkeypatch.setattr(devices, "usable_cores", lambda: 4)
    here = devices.find_device("this")
    assert here.kind == "cpu"
    assert here.products["fp32"] == pytest.approx(4 * DEVICES["cpu"].products["fp32"])
    assert here.bytes_per_second == 50e9
