"""A run goes on only as the run that was begun: every difference is named and refused, or accepted."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trimtab import Trainer, load_config
from trimtab.errors import DriftError
from trimtab.events import DecisionTaken, EvaluationEnded, Event, RunEnded, RunStarted, Save, StepsEnded
from trimtab.runs.checkpoints import latest
from trimtab.runs.drift import drift


class Leaves:
    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded) and event.last_step >= 12:
            raise KeyboardInterrupt


class Remembers:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def observe(self, event: Event) -> None:
        self.events.append(event)


class Quiet:
    """A controller that asks for nothing."""

    name = "quiet"

    def decide(self, event: Event) -> None:
        return None

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Any) -> None:
        pass


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "data.source": {"name": "text", "path": str(folder / "text.py")},
        "data.tokenizer": {"name": "bytes"},
        "data.sequence_length": 16,
        "model": {"name": "decoder", "num_layers": 1, "hidden_size": 16, "num_heads": 1},
        "training": {"steps": 20, "micro_batch_size": 4, "accumulation": 2, "threads": 1, "device": "cpu"},
        "evaluation": {"every": 5, "max_tokens": 256, "gap_tokens": 0, "yardsticks": False},
        **more,
    }


def fit(folder: Path, given: dict[str, Any] | None = None, **named: Any) -> str:
    overrides = [f"{key}={json.dumps(value)}" for key, value in (given or settings(folder)).items()]
    config = load_config(None, overrides, environment={})
    return Trainer(config, run=folder / "run", **named).fit().status


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("begun")
    shutil.copy(Path(json.__file__).with_name("decoder.py"), folder / "text.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIMTAB_CACHE", str(folder / "cache"))
        with pytest.raises(KeyboardInterrupt):
            fit(folder, monitors=[Leaves()])
        yield folder


@pytest.fixture
def folder(begun: Path) -> Iterator[Path]:
    """The run as it was left; each test has the same."""
    shutil.copytree(begun / "run", begun / "kept", dirs_exist_ok=True)
    text = (begun / "text.py").read_text()
    yield begun
    shutil.rmtree(begun / "run")
    os.rename(begun / "kept", begun / "run")
    (begun / "text.py").write_text(text)


def other(**more: Any) -> Callable[[Path], dict[str, Any]]:
    def make(folder: Path) -> dict[str, Any]:
        given = settings(folder)
        training = given["training"] | more.pop("training", {})
        return given | {"training": training, **more}

    return make


@pytest.mark.parametrize(
    "changed, named",
    [
        ({"training": {"micro_batch_size": 8}}, "config.training.micro_batch_size: was 4, now 8"),
        ({"training": {"accumulation": 4}}, "config.training.accumulation: was 2, now 4"),
        ({"seed": 1}, "config.seed: was 0, now 1"),
        ({"training": {"compile": "whole"}}, "config.training.compile: was 'auto', now 'whole'"),
        ({"training": {"precision": {"name": "bf16"}}}, "config.training.precision.name: was 'fp32', now 'bf16'"),
        ({"decay_schedule": {"name": "constant"}}, "config.decay_schedule.name: was None, now 'constant'"),
        ({"data.sequence_length": 32}, "config.data.sequence_length: was 16, now 32"),
    ],
)
def test_a_changed_setting_is_named_and_refused(folder: Path, changed: dict[str, Any], named: str) -> None:
    with pytest.raises(DriftError, match="this is not the run that was begun") as refused:
        fit(folder, other(**changed)(folder))
    assert named in refused.value.message
    assert "--accept-drift" in str(refused.value)


def edited(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["torch", "numpy", "trimtab"])
def test_another_version_of_a_library_is_named_and_refused(folder: Path, name: str) -> None:
    edited(folder / "run/facts.json", lambda facts: facts["identity"].update({f"version.{name}": "0.0.1"}))
    with pytest.raises(DriftError, match=rf"version\.{name}: was '0\.0\.1', now '"):
        fit(folder)
    assert fit(folder, accept_drift=True) == "finished"


def test_other_data_is_named_and_refused(folder: Path) -> None:
    text = (folder / "text.py").read_text()
    (folder / "text.py").write_text(text.replace("def ", "fed ", 1))
    with pytest.raises(DriftError, match=r"data\.fingerprint: was '\w+', now '\w+'"):
        fit(folder)
    assert fit(folder, accept_drift=True) == "finished"


def test_another_plan_is_named_and_refused(folder: Path) -> None:
    edited(folder / "run/plan.json", lambda plan: plan.update(threads=2))
    with pytest.raises(DriftError, match=r"plan\.threads: was 1, now 2"):
        fit(folder)
    (folder / "run/plan.json").unlink()
    with pytest.raises(DriftError, match=r"plan\.threads: was 1, now None"):
        fit(folder)
    assert fit(folder, accept_drift=True) == "finished"
    assert json.loads((folder / "run/plan.json").read_text())["threads"] == 1


def test_other_controllers_are_named_and_refused(folder: Path) -> None:
    with pytest.raises(DriftError, match=r"controllers: was \[.*\], now \[.*'quiet'\]"):
        fit(folder, controllers=[Quiet()])


def test_another_batch_is_followed_although_the_attempt_that_accepted_it_saved_nothing(folder: Path) -> None:
    larger = other(training={"accumulation": 4})(folder)
    with pytest.raises(KeyboardInterrupt):  # the checkpoint is of step 10, and the next one would be of 15
        fit(folder, larger, accept_drift=True, monitors=[Leaves()])
    seen = Remembers()
    assert fit(folder, larger, monitors=[seen]) == "finished"
    tokens = [count for event in seen.events if isinstance(event, StepsEnded) for count in event.per_step["tokens"]]
    assert tokens
    assert {round(count / (4 * 16)) for count in tokens} == {4}
    checkpoint = json.loads((latest(folder / "run").path / "checkpoint.json").read_text())  # type: ignore[union-attr]
    assert checkpoint["state"]["progress"]["configured_batch"] == 16


def test_a_batch_that_was_taken_back_before_anything_was_saved_is_the_old_one(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(folder, other(training={"accumulation": 4})(folder), accept_drift=True, monitors=[Leaves()])
    seen = Remembers()
    assert fit(folder, accept_drift=True, monitors=[seen]) == "finished"
    started = [event for event in seen.events if isinstance(event, RunStarted)]
    assert [event.facts["is_other_batch"] for event in started] == [False]


def test_the_best_by_another_metric_is_forgotten(folder: Path) -> None:
    by_accuracy = settings(folder, **{"checkpoint.metric": "validation/accuracy"})
    with pytest.raises(DriftError, match=r"checkpoint\.metric=validation/loss, where nobody wrote another"):
        fit(folder, by_accuracy)
    remembers = Remembers()
    assert fit(folder, by_accuracy, accept_drift=True, monitors=[remembers]) == "finished"
    (ended,) = (event for event in remembers.events if isinstance(event, RunEnded))
    evaluations = {e.step: e.metrics["validation/accuracy"] for e in remembers.events if isinstance(e, EvaluationEnded)}
    assert ended.best_step is not None
    assert ended.best_value == evaluations[ended.best_step] == max(evaluations.values()), "no loss is held against it"
    saves = [one.decision for one in remembers.events if isinstance(one, DecisionTaken)]
    assert any(isinstance(one, Save) and one.reason.startswith("best validation/accuracy") for one in saves)


def test_what_changes_no_result_may_change(folder: Path) -> None:
    harmless = {
        "name": "other",
        "training": {"watchdog_seconds": 5},
        "checkpoint": {"differential": True, "background": False},
        "data.prefetch": 3,
        "alerts": {"rules": {"over": {"when": "end any"}}},
    }
    assert fit(folder, other(**harmless)(folder)) == "finished"


def test_a_run_of_an_older_version_goes_on(folder: Path) -> None:
    """What it did not know yet is at its default, or not told."""
    unknown = ("config.checkpoint.keep_every", "config.training.batch_size", "config.checkpoint.min_improvement")

    def forget(facts: dict[str, Any]) -> None:
        for key in (*unknown, "version.trimtab", "version.numpy", "plan.threads"):
            del facts["identity"][key]

    edited(folder / "run/facts.json", forget)
    with pytest.raises(DriftError, match=r"checkpoint\.min_improvement: was None, now 0\.5"):
        fit(folder, settings(folder, checkpoint={"min_improvement": 0.5}))
    assert fit(folder) == "finished"


def test_what_is_new_in_a_description() -> None:
    assert drift({}, {"config.seed": 0, "version.torch": "2", "plan.threads": 1}) == []
    assert [one.what for one in drift({}, {"config.seed": 1, "device": "cpu"})] == ["config.seed", "device"]
    # There was no such section: that it is all defaults is a difference.
    assert drift({"config.decay_schedule": None}, {"config.decay_schedule.name": "constant"})
    assert drift({"config.seed": 0}, {}) != []


@pytest.mark.parametrize(("bucketing", "refused"), [(8, True), (1, False)])
def test_a_run_of_rows_in_another_order_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucketing: int, refused: bool
) -> None:
    """One that was begun where stretches were sorted by length, and not by padded width."""
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    rows = [{"text": "ab " * (1 + at % 9), "label": "xy"[at % 2]} for at in range(200)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = settings(tmp_path) | {
        "data.source": {"name": "jsonl", "path": str(tmp_path / "rows.jsonl")},
        "data.sequence_length": 32,
        "task": {"name": "classification", "label": "label", "bucketing": bucketing},
        "model": {"name": "encoder", "num_layers": 1, "hidden_size": 16, "num_heads": 1},
    }
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, given, monitors=[Leaves()])
    edited(tmp_path / "run/facts.json", lambda facts: facts["identity"].pop("data.bucketing", None))
    if refused:
        with pytest.raises(DriftError, match=r"data\.bucketing: was None, now 'padded widths'"):
            fit(tmp_path, given)
    else:
        assert fit(tmp_path, given) == "finished"
