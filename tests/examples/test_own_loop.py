"""The example of a loop that is not ours: its runs are judged like any other."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from trimtab.runs import History, RunDirectory

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_both_loops_learn_and_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spec = importlib.util.spec_from_file_location("own_loop", EXAMPLES / "own_loop.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "own_loop", module)
    spec.loader.exec_module(module)
    paths = module.main(short=True)
    losses = []
    for path in paths:
        run = RunDirectory.open(path)
        assert run.status() == "finished"
        history = History.read(run.record)
        assert history.series["train/loss"].num_samples == 200
        losses.append(history.series["validation/loss"].last)
        assert losses[-1] < 3.0, "log(256) is 5.5"
        assert json.loads(run.diagnosis.read_text())["verdict"] in ("healthy", "attention")
        assert run.report.exists()
    assert len({one.kind for one in History.read(paths[0] / "record.jsonl").artifacts}) == 2
    assert (paths[0] / "metrics.csv").read_text().startswith("step,train/loss")
    summary = json.loads((paths[1] / "artifacts" / "summary.json").read_text())["summary"]
    assert summary["bits per byte"] == pytest.approx(losses[1] / 0.6931, rel=1e-3)
