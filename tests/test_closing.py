"""What is made when a run is over: a monitor that raises costs neither the run nor what others are told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest
from torch import nn

from trimtab import LanguageModelTrainer
from trimtab.closing import Closing
from trimtab.config import Config, Int8Quantization
from trimtab.data import PreparedData
from trimtab.events import ArtifactLogged, Event, RunEnded
from trimtab.runs import RunDirectory

SETTINGS: dict[str, Any] = {
    "data.tokenizer": {"name": "bytes"},
    "data.sequence_length": 32,
    "model": {"name": "decoder", "num_layers": 1, "hidden_size": 16, "num_heads": 2},
    "training.steps": 2,
    "training.micro_batch_size": 4,
    "training.compile": "off",
    "evaluation.every": 2,
    "evaluation.max_tokens": 512,
    "evaluation.gap_tokens": 0,
    "evaluation.yardsticks": False,
    "evaluation.samples.max_tokens": 0,
    "hardware.peak_flops": 1e12,
    "stopping": {"name": "none"},
}


class Raises:
    """A monitor that is broken, from its first event on."""

    def observe(self, event: Event) -> None:
        raise ValueError("broken")


class Remembers:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def observe(self, event: Event) -> None:
        if isinstance(event, ArtifactLogged):
            self.texts.append(event.name)


@pytest.mark.filterwarnings("ignore:Raises failed and was passed over")
def test_a_run_ends_with_report_and_texts_beside_a_monitor_that_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.py").write_text(Path(os.__file__).with_name("heapq.py").read_text())
    seen = Remembers()
    trainer = LanguageModelTrainer(
        tmp_path / "text.py",
        settings=SETTINGS,
        run=tmp_path / "run",
        progress=False,
        monitors=[Raises(), seen],
    )
    result = trainer.fit()
    assert result.status == "finished"
    assert result.diagnosis is not None
    assert (tmp_path / "run/report.html").exists()
    assert seen.texts[-2:] == ["goodput", "diagnosis"]


@pytest.mark.filterwarnings("ignore:Raises failed and was passed over")
def test_so_do_its_quantized_model_and_its_temperature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What quantizes and what fits a temperature take long: here they have found something.
    found = {"quantization": {"name": "int8"}, "bytes": 1, "float_bytes": 4, "float_metrics": {}, "metrics": {}}
    monkeypatch.setattr("trimtab.closing.calibrates", lambda config: True)
    monkeypatch.setattr("trimtab.closing.calibrate_run", lambda *given: {"temperature": 1.0, "why": "few texts"})
    monkeypatch.setattr("trimtab.closing.write_quantized", lambda *given: found)
    training = Config().training.model_copy(update={"quantize": Int8Quantization()})
    seen, data = Remembers(), cast(PreparedData, None)  # nothing reads it
    closing = Closing(RunDirectory(tmp_path), Config().model_copy(update={"training": training}), [Raises(), seen])
    closing.complete(data, nn.Identity(), RunEnded(2, "finished", "all steps", None, None, None, 1.0), "plain")
    assert seen.texts == ["quantized", "calibration"]


def test_without_a_report_there_is_no_diagnosis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(run: Any) -> Any:
        raise OSError("full")

    monkeypatch.setattr("trimtab.closing.write_report", refused)
    seen = Remembers()

    with pytest.warns(UserWarning, match="there is no report: .*full"):
        assert Closing(RunDirectory(tmp_path), Config(), [seen]).diagnose(2) is None
    assert seen.texts == []
