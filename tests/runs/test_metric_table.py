"""A run's metrics as a tidy table, in CSV and Parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trimtab import Trainer, load_config
from trimtab.cli import app
from trimtab.events import Event, RunEnded

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


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.chdir(tmp_path)


def test_a_run_is_exported_as_a_table(tmp_path: Path) -> None:
    import csv

    from typer.testing import CliRunner

    config = load_config(SETTINGS, environment={})
    Trainer(config, run=tmp_path / "run").fit()
    for name in ("m.csv", "m.parquet"):
        done = CliRunner().invoke(app, ["export", "run", "--metrics", name, "--layers", "--json"])
        assert done.exit_code == 0, done.output
        told = json.loads(done.stdout)
        assert (tmp_path / name).stat().st_size == told["bytes"]
    with open("m.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == told["rows"]
    losses = [row for row in rows if row["metric"] == "train/loss"]
    assert [int(row["step"]) for row in losses] == list(range(1, 13))
    assert all(row["unit"] == "nats" and row["run"] == "run" and row["time"].endswith("+00:00") for row in losses)
    assert any(row["metric"].startswith("layer/") and row["branch"] == "" for row in rows)
    pyarrow = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.read_table("m.parquet").to_pydict()
    assert list(table) == ["run", "branch", "step", "time", "metric", "value", "unit"]
    assert [f"{value!r}" for value in table["value"]] == [f"{float(row['value'])!r}" for row in rows]
    assert list(table["metric"]) == [row["metric"] for row in rows]
    for arguments, said in (
        (["--metrics", "m.csv"], "m.csv is there already"),
        (["--metrics", "m.txt"], "must end in .csv or .parquet"),
        (["--metrics", "n.csv", "--to", "safetensors"], "is written by itself"),
        (["--layers"], "goes with --metrics"),
        (["--to", "safetensors"], "--out: must be given"),
    ):
        refused = CliRunner().invoke(app, ["export", "run", *arguments])
        assert said in str(refused.exception), arguments
    assert not list(tmp_path.glob(".*.tmp-*"))


def test_a_table_holds_no_formulas_and_every_value(tmp_path: Path) -> None:
    from told_events import record

    from trimtab.events import EvaluationEnded
    from trimtab.runs import RunDirectory
    from trimtab.runs.metric_table import rows_of, write_metrics

    run = RunDirectory.create_at(tmp_path / "run")
    events: list[Event] = [
        EvaluationEnded(1, {"=cmd|' /C calc'!A0": float("nan"), "validation/x/loss": float("inf")}, 0.1),
        RunEnded(1, "finished", "done", None, None, None, 1.0),
    ]
    record(run.record, events)
    assert [(row.value, row.unit) for row in rows_of(run)][1] == (float("inf"), "nats")
    write_metrics(run, tmp_path / "m.csv")
    text = (tmp_path / "m.csv").read_text()
    assert "'=cmd" in text
    assert ",nan," in text
    assert "\r" not in text
