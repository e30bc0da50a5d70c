"""What modules give, written down at examinations, is what they give, and no more of it than was asked for."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trimtab import LanguageModelTrainer
from trimtab.errors import ConfigError, UsageError
from trimtab.events import AlertRaised, Event
from trimtab.model import evaluating
from trimtab.monitor.probes import read_captures
from trimtab.runs import RunDirectory

SETTINGS: dict[str, Any] = {
    "data.tokenizer": {"name": "bytes"},
    "data.sequence_length": 32,
    "model": {"name": "decoder", "num_layers": 2, "hidden_size": 16, "num_heads": 2, "dropout": {"residual": 0.1}},
    "training.steps": 6,
    "training.micro_batch_size": 4,
    "evaluation.every": 6,
    "evaluation.max_tokens": 512,
    "evaluation.gap_tokens": 0,
    "evaluation.yardsticks": False,
    "evaluation.samples.max_tokens": 0,
    "stopping": {"name": "none"},
}


class Remembers:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def observe(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def trained(
    tmp_path: Path, name: str, capture: dict[str, Any], every: int = 3, **rest: Any
) -> tuple[LanguageModelTrainer, list[Event]]:
    text = tmp_path / "text"
    text.mkdir(exist_ok=True)
    (text / "heapq.py").write_text(Path(os.__file__).with_name("heapq.py").read_text())
    seen = Remembers()
    examine = {"every": every, "which": ["predictions"]}
    settings = SETTINGS | {"logging.examine": examine} | ({"logging.capture": capture} if capture else {}) | rest
    trainer = LanguageModelTrainer(text, settings=settings, run=tmp_path / name, progress=False, monitors=[seen])
    trainer.fit()
    return trainer, seen.events


def test_the_newest_file_is_what_the_trained_model_gives(tmp_path: Path) -> None:
    control, _ = trained(tmp_path, "control", {})
    trainer, _ = trained(
        tmp_path, "run", {"layers": ["blocks.1", "blocks.*.attention", "final_norm"], "values": 16 * 40 + 3}
    )
    assert trainer.model is not None
    assert control.model is not None
    weights = control.model.state_dict()
    assert all(torch.equal(one, weights[name]) for name, one in trainer.model.state_dict().items())
    assert read_captures(tmp_path / "control") == []
    first, newest = read_captures(tmp_path / "run")
    assert (first.step, newest.step) == (3, 6)
    assert list(newest.modules) == sorted(["blocks.0.attention", "blocks.1", "blocks.1.attention", "final_norm"])
    given: dict[str, Tensor] = {}
    for name in newest.modules:
        trainer.model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: given.update(
                {name: output[0] if isinstance(output, tuple) else output}
            )
        )
    with evaluating(trainer.model):
        trainer.model(**newest.inputs)
    for name, rows in newest.modules.items():
        assert newest.shapes[name] == tuple(given[name].shape) == (4, 32, 16)
        assert rows.shape == (40, 16)  # whole positions
        torch.testing.assert_close(rows, given[name].flatten(0, 1)[:40])
    assert not torch.equal(first.modules["blocks.1"], newest.modules["blocks.1"])
    assert torch.equal(first.inputs["tokens_BT"], newest.inputs["tokens_BT"])


def test_when_they_would_take_too_much_no_more_is_written(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trainer, events = trained(tmp_path, "run", {"layers": ["*"], "megabytes": 1}, every=1)
    files = sorted(RunDirectory(tmp_path / "run").captures.iterdir())
    sizes = [file.stat().st_size for file in files]
    assert sum(sizes) <= 10**6 < sum(sizes) + sizes[-1]
    (alert,) = [event for event in events if isinstance(event, AlertRaised)]
    assert [one.step for one in read_captures(tmp_path / "run")] == list(range(1, alert.step))
    assert 1 < alert.step <= 6
    assert "more than logging.capture.megabytes" in alert.text
    assert any("'capture' failed and is left out" in str(one.message) for one in told)
    assert trainer.model is not None


@pytest.mark.parametrize("samples", ["redacted", "hashed", "off"])
def test_what_the_model_read_is_written_where_samples_are_on_alone(samples: str, tmp_path: Path) -> None:
    few = {"training.steps": 1, "evaluation.every": 1, "privacy.samples": samples}
    trained(tmp_path, "run", {"layers": ["final_norm"]}, every=1, **few)
    (capture,) = read_captures(tmp_path / "run")
    assert list(capture.modules) == ["final_norm"]
    assert capture.inputs == {}


def test_a_name_that_no_module_has_is_refused_before_step_1(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"logging\.capture\.layers: no module has such a name.*'blocks\.7'"):
        trained(tmp_path, "run", {"layers": ["blocks.7"]})


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    (tmp_path / "config.yaml").write_text("")
    run.captures.mkdir(parents=True)
    (run.captures / "step-00000003.safetensors").write_bytes(b"torn")
    with pytest.raises(UsageError, match="is no capture, or damaged"):
        read_captures(tmp_path)
