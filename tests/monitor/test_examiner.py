"""Examinations look at a run and leave no trace in it."""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from trimtab import LanguageModelTrainer
from trimtab.config.examine import ExamineConfig
from trimtab.config.keys import keys
from trimtab.config.registry import load_target
from trimtab.config.registry.examinations import EXAMINATIONS, INLINE, ExaminationSpec
from trimtab.doctor.codes import CODES
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.load import open_case
from trimtab.events import (
    AlertRaised,
    ArtifactLogged,
    Event,
    ExaminationEnded,
    Histogram,
    RunEnded,
    RunStarted,
    StepsEnded,
    Stop,
)
from trimtab.model import buffers_kept
from trimtab.optimizer import FlatStorage
from trimtab.runs import History, RunDirectory
from trimtab.runs.examinations import read_examinations
from trimtab.runs.goodput import goodput
from trimtab.runs.metrics import METRICS
from trimtab.runs.record import event_from_json, event_to_json, lines_of
from trimtab.signals import Examined, Readings
from trimtab.training import Calendar
from trimtab.training.step import Step

SETTINGS: dict[str, Any] = {
    "data.tokenizer": {"name": "bytes"},
    "data.sequence_length": 32,
    "model": {
        "name": "decoder",
        "num_layers": 2,
        "hidden_size": 16,
        "num_heads": 2,
        "dropout": {"residual": 0.1},
    },
    "optimizer.learning_rate": 5e-3,
    "training.steps": 10,
    "training.micro_batch_size": 4,
    "training.compile": "off",
    "evaluation.every": 5,
    "evaluation.max_tokens": 512,
    "evaluation.gap_tokens": 0,
    "evaluation.yardsticks": False,
    "evaluation.samples.max_tokens": 0,
    "stopping": {"name": "none"},
    "logging.every": 2,
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    (folder / "heapq.py").write_text(Path(os.__file__).with_name("heapq.py").read_text())
    return folder


class Remembers:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def observe(self, event: Event) -> None:
        self.events.append(event)

    def examinations(self) -> list[ExaminationEnded]:
        return [event for event in self.events if isinstance(event, ExaminationEnded)]


class StopsAt:
    """A run that ends early, and can be gone on with."""

    name = "stops_at"

    def __init__(self, step: int) -> None:
        self.step = step

    def decide(self, event: Event) -> Stop | None:
        return Stop("enough", exit_code=4) if getattr(event, "step", 0) == self.step else None

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        pass


def trained(
    text: Path, run: Path, settings: Mapping[str, Any], **rest: Any
) -> tuple[dict[str, Tensor], list[ExaminationEnded]]:
    """The weights that a run ends with, and what its examinations found."""
    seen = Remembers()
    trainer = LanguageModelTrainer(
        text, settings={**SETTINGS, **settings}, run=run, progress=False, monitors=[seen], **rest
    )
    trainer.fit()
    assert trainer.model is not None
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}, seen.examinations()


@pytest.fixture(scope="module")
def control(text: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    weights, examinations = trained(text, tmp_path_factory.mktemp("control") / "run", {})
    assert not examinations  # so few steps are not examined where nobody asks
    return weights


def the_same(weights: Mapping[str, Tensor], control: Mapping[str, Tensor]) -> bool:
    return weights.keys() == control.keys() and all(torch.equal(weights[name], control[name]) for name in control)


def plain(events: Iterable[ExaminationEnded]) -> list[Any]:
    return [(event.step, dict(event.metrics), dict(event.layers), event.histograms, event.samples) for event in events]


@pytest.mark.parametrize(
    "name",
    # All of them at once are quick; here the costliest two stand for the others.
    [n if n in ("gradients", "attention") else pytest.param(n, marks=pytest.mark.slow) for n in EXAMINATIONS],
)
def test_an_examination_leaves_the_weights_as_they_are_through_a_resume_too(
    name: str, text: Path, tmp_path: Path, control: dict[str, Tensor]
) -> None:
    asked = {"logging.examine.every": 3, "logging.examine.which": [name]}
    weights, whole = trained(text, tmp_path / "whole", asked)
    assert the_same(weights, control)
    assert [event.step for event in whole] == [3, 6, 9]
    assert all(event.metrics or event.layers or event.histograms or event.samples for event in whole)

    trained(text, tmp_path / "parts", asked, controllers=[StopsAt(5)])
    weights, later = trained(text, tmp_path / "parts", asked, controllers=[StopsAt(-1)])
    assert the_same(weights, control)
    assert repr(plain(later)) == repr(plain(whole[1:]))  # nan is like nan


def test_all_are_made_where_nothing_is_said_and_each_name_means_its_own() -> None:
    assert ExamineConfig().names == ExamineConfig(which="all").names == tuple(EXAMINATIONS)
    assert ExamineConfig(which=("loss", "gradients")).names == ("gradients", "loss")
    with pytest.raises(ValidationError, match="which"):
        ExamineConfig.model_validate({"which": "usual"})


def test_all_of_them_at_once_find_what_each_finds_alone(text: Path, tmp_path: Path, control: dict[str, Tensor]) -> None:
    weights, together = trained(text, tmp_path / "all", {"logging.examine.every": 5, "logging.examine.which": "all"})
    assert the_same(weights, control)
    found: dict[str, float] = {}
    for name in EXAMINATIONS:
        asked = {"logging.examine.every": 5, "logging.examine.which": [name]}
        _, alone = trained(text, tmp_path / name, asked)
        found |= {**alone[-1].metrics, **alone[-1].layers}
    assert repr(sorted(found.items())) == repr(sorted({**together[-1].metrics, **together[-1].layers}.items()))


def test_what_is_found_is_in_the_run(text: Path, tmp_path: Path) -> None:
    _, examinations = trained(text, tmp_path / "run", {"logging.examine.every": 5, "logging.examine.which": "all"})
    run = RunDirectory(tmp_path / "run")
    history = History.read(run.record, statistics=run.statistics)
    for event, kept in zip(examinations, read_examinations(run.examinations), strict=True):
        assert kept.step == event.step
        numbers = {name: value for name, value in event.layers.items() if not math.isnan(value)}
        assert kept.layers == pytest.approx(numbers, rel=1e-6)
        assert kept.histograms.keys() == event.histograms.keys()
        for name, value in event.metrics.items():
            steps, values = history.series[name].raw()
            assert values[steps == event.step] == pytest.approx(value, nan_ok=True), name
    steps, layers, values = history.examined.values("grad_mean")
    assert steps.tolist() == [5, 10]
    assert values[1, layers.index("blocks.0.attention.output.weight")] == pytest.approx(
        examinations[1].layers["layer/blocks.0.attention.output.weight/grad_mean"], rel=1e-6
    )
    for event in examinations:
        for name in event.metrics:
            family = name.rpartition("/")[0]
            assert any(row == name or row.partition("/<")[0] == family for row in METRICS), name
        for name in [*event.layers]:
            assert f"layer/<name>/{name.rsplit('/', 1)[-1]}" in METRICS


def test_its_time_is_booked_and_many_metrics_are_several_lines() -> None:
    metrics = {f"probe/{index}": float(index) for index in range(120)} | {"probe/bad": math.nan}
    event = ExaminationEnded(5, metrics, 2.0, samples=({"sample": 3, "loss": math.inf},))
    lines = list(lines_of(event))
    assert [len(line["metrics"]) for line in lines] == [50, 50, 21]
    events = [event_from_json(json.loads(json.dumps(line))) for line in lines]
    told: dict[str, float] = {}
    for part in events:
        assert isinstance(part, ExaminationEnded)
        told |= part.metrics
    assert repr(told) == repr(metrics)
    assert events[0] == replace(event, metrics=dict(list(metrics.items())[:50]))
    windows = [
        StepsEnded(1, 4, {"step_seconds": np.ones(4)}, {}),
        StepsEnded(5, 8, {"step_seconds": np.ones(4)}, {}),
    ]
    every = [
        RunStarted(0, 1, 0, None, 8),
        windows[0],
        event,
        windows[1],
        RunEnded(8, "finished", "", None, None, None, 10.0),
    ]
    record = [
        {"sequence": number, "branch": 0, "time": 100.0 + 10.0 * (number > 1)} | line
        for number, line in enumerate((line for one in every for line in lines_of(one)), start=1)
    ]
    found = goodput(record)
    assert found is not None
    assert found.seconds["probe"] == 2.0
    assert found.seconds["productive"] == 8.0
    taken_back = goodput(record, resumes_from=4)
    assert taken_back is not None
    assert (taken_back.seconds["probe"], taken_back.seconds["redone"]) == (0.0, 6.0)


def test_histograms_survive_json() -> None:
    event = ExaminationEnded(5, {}, 2.0, {}, {"layer/a/weight": Histogram(-1.0, 2.0, (1.0, 3.0))})
    assert event_from_json(json.loads(json.dumps(event_to_json(event)))) == event


def test_the_cards_are_true() -> None:
    for spec in INLINE.values():
        probe = load_target(spec.path, "here")
        assert hasattr(probe, "read")
        assert set(spec.serves) <= set(CODES)
        assert spec.switch in keys()
    for name, spec in EXAMINATIONS.items():
        assert set(spec.serves) <= set(CODES), name
        assert spec.sentence
        assert spec.cost


class Raises:
    """Raises where it is told to, and leaves a hook behind that nobody wants."""

    name = "raises"
    where = "read"

    def __init__(self, seed: int) -> None:
        pass

    @contextmanager
    def attach(self, model: nn.Module) -> Iterator[None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            if self.where == "pass":
                raise RuntimeError("in the pass")

        handle = next(iter(model.children())).register_forward_hook(hook)
        try:
            if self.where == "attach":
                raise RuntimeError("as it is attached")
            yield
        finally:
            handle.remove()

    def read(self, examined: Examined) -> Readings:
        if self.where == "read":
            raise RuntimeError("as it reads")
        return Readings({"probe/grad_mean": 0.0})

    def begin(self, step: int, weights: Mapping[str, Tensor]) -> None:
        if self.where == "begin":
            raise RuntimeError("as it begins")

    def before(self, weights: Mapping[str, Tensor]) -> None:
        if self.where == "before":
            raise RuntimeError("before a step")

    def state_by_name(self) -> dict[str, Tensor]:
        return {}

    def load_state_by_name(self, state: Mapping[str, Tensor]) -> None:
        pass


@pytest.mark.parametrize("where", ["attach", "pass", "read", "begin", "before"])
def test_one_that_raises_is_said_and_left_out(
    where: str, text: Path, tmp_path: Path, control: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Raises, "where", where)
    monkeypatch.setitem(EXAMINATIONS, "raises", ExaminationSpec(f"{__name__}:Raises", "raises", "nothing"))
    seen = Remembers()
    settings = {**SETTINGS, "logging.examine.every": 2, "logging.examine.which": ["gradients", "raises"]}
    trainer = LanguageModelTrainer(text, settings=settings, run=tmp_path / "run", progress=False, monitors=[seen])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trainer.fit()
    assert sum("'raises' failed and is left out" in str(warning.message) for warning in told) == 1
    alerts = [event for event in seen.events if isinstance(event, AlertRaised)]
    assert [(alert.kind, alert.details["examination"]) for alert in alerts] == [("examination_failed", "raises")]
    assert trainer.model is not None
    assert the_same(dict(trainer.model.state_dict()), control)
    events = seen.examinations()
    assert [event.step for event in events] == [2, 4, 6, 8, 10]
    assert all(event.metrics["probe/grad_norm"] > 0 for event in events)
    assert all(event.metrics["probe/grad_left"] == 0 for event in events)


def _begins_without_clearing(patch: pytest.MonkeyPatch) -> None:
    """Each step but the first leaves the clearing out of its beginning."""
    begin, turn = Step.begin, count()

    def begun(self: Step, *, in_parts: bool = False) -> None:
        if next(turn) == 0:
            begin(self, in_parts=in_parts)
        torch._foreach_zero_(self.sums)

    patch.setattr(Step, "begin", begun)


def _storage_keeps(patch: pytest.MonkeyPatch) -> None:
    clear, turn = FlatStorage.zero_gradients, count()

    def cleared(self: FlatStorage, *, in_parts: bool = False) -> None:
        if next(turn) == 0:
            clear(self, in_parts=in_parts)

    patch.setattr(FlatStorage, "zero_gradients", cleared)


def test_a_step_that_does_not_clear_is_found_and_examinations_do_not_clear_for_it(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = []
    for number, (fault, every) in enumerate(
        [(_storage_keeps, 1000), (_storage_keeps, 2), (_begins_without_clearing, 2)]
    ):
        run = tmp_path / str(number)
        with monkeypatch.context() as patch:
            fault(patch)
            settings = {"logging.examine.every": every, "logging.examine.at_evaluations": False}
            ended, examinations = trained(text, run, settings)
        weights.append(ended)
        if every == 2:
            assert [event.metrics["probe/grad_left"] > 0 for event in examinations] == [True] * 5
            first = diagnose(open_case(RunDirectory.open(run))).findings[0]
            assert (first.code, first.confidence) == ("gradients-not-cleared", 0.95)
    assert the_same(weights[0], weights[1])
    assert the_same(weights[0], weights[2])


@pytest.mark.parametrize("assigns", [False, True], ids=["in place", "a new tensor"])
def test_an_outside_model_keeps_its_buffers_and_generators(assigns: bool, text: Path, tmp_path: Path) -> None:
    """A module that counts its calls, also in eval mode, and draws there from every generator."""
    import random

    class Counts(nn.Module):
        calls: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(257, 8)
            self.norm = nn.BatchNorm1d(8)
            self.head = nn.Linear(8, 257)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, tokens: Tensor) -> Tensor:
            if assigns:
                self.calls = self.calls + 1
            else:
                self.calls += 1
            noise = random.random() + float(np.random.random()) + torch.rand(())
            x = self.embedding(tokens) * (1 + 1e-3 * noise)
            return self.head(self.norm(x.flatten(0, 1)).view_as(x))

    found = []
    for every in (0, 2):
        torch.manual_seed(1)
        trainer = LanguageModelTrainer(
            text,
            model=Counts(),
            settings={**{k: v for k, v in SETTINGS.items() if k != "model"}, "logging.examine.every": every},
            run=tmp_path / f"run-{every}",
            progress=False,
        )
        trainer.fit()
        assert trainer.model is not None
        found.append({name: tensor.clone() for name, tensor in trainer.model.state_dict().items()})
    assert the_same(*found)


class Sleeps:
    """Takes its time before the step that it looks at."""

    name = "sleeps"

    def __init__(self, seed: int) -> None:
        self.told: list[str] = []

    def attach(self, model: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def read(self, examined: Examined) -> Readings:
        return Readings({"probe/grad_mean": float(len(self.told))})

    def begin(self, step: int, weights: Mapping[str, Tensor]) -> None:
        self.told.append("begin")
        time.sleep(0.4)

    def before(self, weights: Mapping[str, Tensor]) -> None:
        self.told.append("before")
        time.sleep(0.4)

    def state_by_name(self) -> dict[str, Tensor]:
        return {}

    def load_state_by_name(self, state: Mapping[str, Tensor]) -> None:
        pass


def test_what_comes_before_an_examined_step_is_no_time_of_the_step(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXAMINATIONS, "sleeps", ExaminationSpec(f"{__name__}:Sleeps", "sleeps", "time"))
    asked = {"logging.examine.every": 2, "logging.examine.which": ["sleeps"], "logging.every": 1}
    few = {"training.steps": 3, "evaluation.every": 3}
    seen = Remembers()
    settings = {**SETTINGS, **asked, **few}
    LanguageModelTrainer(text, settings=settings, run=tmp_path / "run", progress=False, monitors=[seen]).fit()
    (examination,) = seen.examinations()
    assert examination.metrics["probe/grad_mean"] == 2.0  # begun once, prepared once
    assert examination.seconds >= 0.8
    seconds = [float(event.per_step["step_seconds"][0]) for event in seen.events if isinstance(event, StepsEnded)]
    assert len(seconds) == 3
    assert max(seconds) < 0.4
    (ended,) = [event for event in seen.events if isinstance(event, RunEnded)]
    assert ended.time_split["probe"] >= 0.8
    assert ended.time_split["training"] < 0.8


def test_texts_are_redacted_before_they_are_cut(tmp_path: Path) -> None:
    lines = [f"{word} 4111 1111 1111 {number:04d},\n" for number in range(400) for word in ("card", "or this", "and")]
    (tmp_path / "cards.txt").write_text("".join(lines))
    asked = {"data.sequence_length": 768, "logging.examine.every": 1, "training.steps": 2, "evaluation.every": 2}
    seen = Remembers()
    settings = {**SETTINGS, **asked, "logging.examine.which": ["loss"], "privacy.samples": "redacted"}
    LanguageModelTrainer(
        tmp_path / "cards.txt", settings=settings, run=tmp_path / "run", progress=False, monitors=[seen]
    ).fit()
    texts = [one.text for one in seen.events if isinstance(one, ArtifactLogged) and one.name.startswith("highest-loss")]
    assert len(texts) == 6
    for text in texts:
        assert len(text) == 400
        assert "[card number]" in text
        assert not any(map(str.isdigit, text[30:])), "the beginning may lie within a number"


def test_a_pass_that_fails_half_way_leaves_the_buffers_too() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(2))
            self.register_buffer("cache", None)

        def forward(self) -> None:
            self.mean = torch.ones(2)
            self.cache = torch.ones(2)
            self.register_buffer("late", torch.ones(2))
            raise ValueError("half way")

    model = Fails()
    mean = model.mean
    with pytest.raises(ValueError, match="half way"), buffers_kept(model):
        model()
    assert model.mean is mean
    assert dict(model._buffers) == {"mean": mean, "cache": None}
    assert not mean.any()


@pytest.mark.parametrize(
    ("every", "apart", "evaluate_every", "steps", "expected"),
    [
        (0, 0, 10, 30, []),
        (7, 0, 10, 30, [7, 14, 21, 28]),
        (0, 500, 100, 1200, [500, 1000]),
        (0, 500, 300, 1300, [600, 1200]),
        (0, 500, 300, 1000, [600, 1000]),  # the last evaluation is off the beat
        (0, 500, 2000, 4100, [2000, 4000]),
        (0, 500, 100, 450, [450]),
        (0, 500, 100, 499, [499]),
        (0, 500, 100, 100, [100]),
        (0, 500, 100, 99, []),
        (400, 500, 100, 1000, [400, 500, 800, 1000]),
    ],
)
def test_when_a_model_is_examined(every: int, apart: int, evaluate_every: int, steps: int, expected: list[int]) -> None:
    calendar = Calendar(steps, 10, evaluate_every, evaluate_every, every, apart)
    assert [step for step in range(1, steps + 1) if calendar.examines(step)] == expected
