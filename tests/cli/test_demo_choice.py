"""Which demo a machine gets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trimtab.cli import running
from trimtab.config import dump_config, load_config
from trimtab.errors import ConfigError
from trimtab.training import execution


@pytest.fixture
def on_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("on_a_processor")
@pytest.mark.parametrize(("speed", "preset"), [(6e10, "demo-small"), (1e12, "demo")])
def test_a_slow_processor_gets_the_small_one(
    speed: float, preset: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(execution, "processor_speed", lambda: speed)
    assert running._demo([], None) == preset
    said = capsys.readouterr().err
    assert ("60 GFLOP/s: taking the preset demo-small" in said) == (preset == "demo-small")


@pytest.mark.parametrize(("name", "source"), [("demo", "run"), ("demo-small", "run"), ("gpt-1m", "demo")])
def test_a_run_that_was_begun_stays_what_it_is(name: str, source: str, tmp_path: Path) -> None:
    """Another speed, on another day, must not change the configuration; a run of another preset is refused as drift."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(dump_config(load_config(name)))
    (run / "record.jsonl").touch()
    assert running._demo([], run) == ("demo" if source == "demo" else str(run / "config.yaml"))


def test_a_typing_error_is_told_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "processor_speed", lambda: pytest.fail("measured in vain"))
    with pytest.raises(ConfigError, match=r"training\.stesp"):
        running._demo(["training.stesp=3"], None)


def test_the_speed_is_measured() -> None:
    assert 1e8 < execution.processor_speed() < 1e15
