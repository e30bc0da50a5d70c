"""Whole runs with sinks: the same weights whatever a sink does, and no secret in any file or sink."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtab import Trainer, load_config
from trimtab.cli import app
from trimtab.events import ArtifactLogged, Event

SETTINGS: dict[str, Any] = {
    "seed": 1,
    "data": {
        "source": {"name": "text", "path": json.__file__},
        "tokenizer": {"name": "bytes"},
        "sequence_length": 32,
    },
    "model": {"name": "decoder", "num_layers": 1, "hidden_size": 32, "num_heads": 2},
    "training": {"steps": 12, "micro_batch_size": 4, "device": "cpu", "compile": "off", "threads": 1},
    "evaluation": {
        "every": 6,
        "max_tokens": 512,
        "gap_tokens": 0,
        "yardsticks": False,
        "samples": {"prompts": ["def "], "max_tokens": 4},
    },
    "logging": {"every": 3},
}
HF, WANDB, PASSWORD = "hf_plantedplantedplanted1234", "0123456789abcdef0123456789abcdef01234567", "correct-horse"
RELEASED = threading.Event()


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.chdir(tmp_path)


class Bad:
    """A sink that fails in one of the ways that there are."""

    def __init__(self, how: str) -> None:
        self.how = how
        if how == "unmade":
            raise ConnectionRefusedError("nobody listens")

    def observe(self, event: Event) -> None:
        if self.how == "raises":
            raise ValueError("no")
        if self.how == "hangs":
            RELEASED.wait(60)
        if self.how == "full disk":
            with open("/dev/full", "w") as file:
                file.write("x")

    def flush(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def bad(how: str) -> dict[str, Any]:
    here = f"{__name__}:Bad"
    return {"name": "custom", "target": here, "arguments": {"how": how}, "max_failures": 2, "flush_seconds": 0.2}


def weights(run: Path, **more: Any) -> dict[str, torch.Tensor]:
    trainer = Trainer(load_config(SETTINGS | more, environment={}), run=run)
    trainer.fit()
    assert trainer.model is not None
    return trainer.model.state_dict()


def test_bad_sinks_leave_the_weights_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this_module())
    expected = weights(tmp_path / "control")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = weights(tmp_path / "run", sinks=[bad(how) for how in ("unmade", "raises", "hangs", "full disk")])
    RELEASED.set()
    told = [str(one.message) for one in caught]
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert sum("failed and is left out of this run" in line for line in told) == 3
    assert sum("it was not done in 0.2 s" in line for line in told) == 1
    records = [(tmp_path / name / "record.jsonl").read_text().count('"event"') for name in ("control", "run")]
    assert records[0] == records[1]


def _this_module() -> Any:
    import types

    module = types.ModuleType(__name__)
    module.Bad = Bad  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize("how", ["off", "hashed"])
def test_samples_are_kept_back_from_record_screen_and_sinks(how: str, tmp_path: Path) -> None:
    class Watches:
        def __init__(self) -> None:
            self.samples: list[str] = []

        def observe(self, event: Event) -> None:
            if isinstance(event, ArtifactLogged) and event.kind == "sample":
                self.samples.append(event.text)

    watcher = Watches()
    config = load_config(SETTINGS | {"privacy": {"samples": how}}, environment={})
    Trainer(config, run=tmp_path / "run", monitors=[watcher]).fit()
    record = (tmp_path / "run" / "record.jsonl").read_text()
    kept = [line for line in map(json.loads, record.splitlines()) if line.get("kind") == "sample"]
    assert [line["text"] for line in kept] == watcher.samples
    assert len(watcher.samples) == (0 if how == "off" else 2)
    assert all(text.startswith("sha256:") for text in watcher.samples)


def test_no_file_and_no_sink_holds_a_planted_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted in the environment, the command line, the prompts, an address, the code's diff, and an error."""
    for package in ("tensorboard", "wandb", "mlflow", "trackio"):
        pytest.importorskip(package)
    from trackio import sqlite_storage
    from typer.testing import CliRunner

    monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", WANDB)
    monkeypatch.setenv("DATABASE_PASSWORD", PASSWORD)
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        (tmp_path / "code.py").write_text("x = 1\n")
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        subprocess.run(git, cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "code.py").write_text(f'x = 2\nAPI_KEY = "planted-in-code"\ntoken = "{HF}"\n')
    settings = SETTINGS | {
        "sinks": ["tensorboard", {"name": "wandb", "mode": "offline"}, "mlflow", "trackio"],
        "evaluation": SETTINGS["evaluation"] | {"samples": {"prompts": [f"use {HF} "], "max_tokens": 2}},
    }
    path = tmp_path / "mine.json"
    path = path.with_suffix(".yaml")
    path.write_text(json.dumps(settings))
    command = ["train", str(path), "--run", "run", f"name={'x' * 5}"]
    monkeypatch.setattr(
        "sys.argv", ["trimtab", *command, "--hub-token", "planted-in-command", f"https://me:{PASSWORD}@h"]
    )
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    planted = [HF, WANDB, PASSWORD, "planted-in-code", "planted-in-command"]
    files = [file for file in tmp_path.rglob("*") if file.is_file() and ".git" not in file.parts]
    own = {path, tmp_path / "code.py"}
    found = [
        (str(file.relative_to(tmp_path)), secret)
        for file in files
        if file not in own
        for secret in planted
        if secret.encode() in file.read_bytes()
    ]
    assert found == []
    assert HF not in done.output
    kinds = {file.relative_to(tmp_path).parts[:2] for file in files}
    for place in (("run", "tensorboard"), ("run", "wandb"), ("mlflow.db",), ("run", "artifacts"), ("run", "sinks")):
        assert place in kinds or place[0] in {part[0] for part in kinds}
    diff = (tmp_path / "run" / "artifacts" / "changes.diff").read_text()
    assert "+x = 2" in diff
    assert '+API_KEY = "***"' in diff
    said = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert said["git"]["diff"]["path"] == "artifacts/changes.diff"
    assert said["command"][-3:] == ["--hub-token", "***", "https://***@h"]
    assert '"use *** "' in (tmp_path / "run" / "config.yaml").read_text()


def test_an_error_that_ends_a_run_is_told_without_its_secret(tmp_path: Path) -> None:
    class Breaks:
        name = "breaks"

        def decide(self, event: Event) -> None:
            raise RuntimeError(f"https://me:{PASSWORD}@host refused {HF}")

        def state(self) -> dict[str, Any]:
            return {}

        def load_state(self, state: Any) -> None:
            """Nothing."""

    with pytest.raises(RuntimeError):
        Trainer(load_config(SETTINGS, environment={}), run=tmp_path / "run", controllers=[Breaks()]).fit()
    held = "".join(file.read_text(errors="replace") for file in (tmp_path / "run").rglob("*.json*"))
    assert HF not in held
    assert PASSWORD not in held
    assert "refused ***" in held


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_in_the_same_places(tmp_path: Path) -> None:
    """A real SIGKILL: TensorBoard has every step once; W&B and trackio none twice, and may lack what was under way."""
    for package in ("tensorboard", "wandb", "trackio"):
        pytest.importorskip(package)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    steps = 400
    settings = SETTINGS | {
        "training": SETTINGS["training"] | {"steps": steps},
        "evaluation": SETTINGS["evaluation"] | {"every": 50},
        "sinks": ["tensorboard", {"name": "wandb", "mode": "offline", "points": "step"}, "trackio"],
    }
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(settings))
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio")}
    command = [sys.executable, "-m", "trimtab.cli", "train", str(path), "--run", "run"]
    record = tmp_path / "run" / "record.jsonl"
    killed = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL)
    while not (record.exists() and '"last_step":180' in record.read_text()):
        assert killed.poll() is None
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    sizes = {"scalars": 0}
    read = EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance=sizes).Reload()
    assert [one.step for one in read.Scalars("train/loss")] == list(range(1, steps + 1))
    assert [one.step for one in read.Scalars("validation/loss")] == list(range(50, steps + 1, 50))
    script = (
        "import json; from trackio.sqlite_storage import SQLiteStorage as s; "
        "print(json.dumps([row['step'] for row in s.get_logs('trimtab', 'run') if 'train/loss' in row]))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert len(set(found)) == len(found) > 100
    assert found == sorted(found)
    assert len(list((tmp_path / "run").glob("wandb/offline-run-*"))) == 2
