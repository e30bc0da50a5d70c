"""The callback in a real Trainer: what it writes is what Trainer saw, and the training is the same to the bit."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trimtab.doctor import open_case
from trimtab.doctor.rules import RULES
from trimtab.errors import UsageError
from trimtab.runs import RunDirectory, read_record
from trimtab.runs.history import History
from trimtab.runs.importers import read_foreign
from trimtab.runs.summary import render, summarize

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from trimtab.integrations.huggingface import TrimtabCallback  # noqa: E402

TOKENS = torch.randint(0, 61, (64, 12), generator=torch.Generator().manual_seed(1))
DATA = [{"input_ids": row, "labels": row} for row in TOKENS]


def trainer(
    folder: Path, *callbacks: Any, kind: Callable[..., Any] = transformers.Trainer, steps: int = 30, **settings: Any
) -> Any:
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=61, n_positions=12, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
        )
    )
    arguments = transformers.TrainingArguments(
        str(folder),
        **{
            "max_steps": steps,
            "per_device_train_batch_size": 4,
            "logging_steps": 5,
            "eval_strategy": "steps",
            "eval_steps": 10,
            "save_strategy": "no",
            "report_to": [],
            "use_cpu": True,
            "disable_tqdm": True,
            "learning_rate": 3e-3,
            **settings,
        },
    )
    return kind(model, arguments, train_dataset=DATA, eval_dataset=DATA[:8], callbacks=list(callbacks))


def fit(folder: Path, *callbacks: Any, **settings: Any) -> Any:
    made = trainer(folder, *callbacks, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # a callback that failed has warned
        made.train()
    return made


def history_of(path: Path) -> History:
    return History.read(path / "record.jsonl", statistics=path / "statistics")


def values(history: History, name: str) -> dict[int, float]:
    series = history.get(name)
    assert series is not None, f"{name} is not in {list(history.series)}"
    return dict(zip(*(part.tolist() for part in series.raw()), strict=True))


@pytest.mark.parametrize("accumulation", [1, 3])
def test_what_is_recorded_is_what_trainer_logged(tmp_path: Path, accumulation: int) -> None:
    made = fit(
        tmp_path / "out",
        TrimtabCallback(tmp_path / "run"),
        gradient_accumulation_steps=accumulation,
        max_grad_norm=0.5,
        save_strategy="steps",
        save_steps=20,
    )
    history = history_of(tmp_path / "run")
    losses = values(history, "train/loss")
    assert list(losses) == list(range(1, 31))
    norms, rates = values(history, "grad_norm"), values(history, "learning_rate")
    for entry in made.state.log_history:
        step = entry["step"]
        if "loss" in entry:
            assert np.mean([losses[one] for one in range(step - 4, step + 1)]) == pytest.approx(entry["loss"], rel=1e-5)
            assert norms[step] == pytest.approx(entry["grad_norm"], rel=1e-6)
            assert rates[step] == pytest.approx(entry["learning_rate"], rel=1e-6)
        if "eval_loss" in entry:
            assert values(history, "validation/loss")[step] == entry["eval_loss"]
    assert history.total_steps == 30
    assert history.ended is not None
    assert history.ended.status == "finished"
    assert [saved.step for saved in history.checkpoints] == [20, 30]
    assert (tmp_path / "run" / history.checkpoints[0].path).is_dir()
    steps, names, layer_norms = history.layers.values("grad_norm")
    assert steps.tolist() == [1, 10, 20, 30]
    assert "transformer.wte.weight" in names
    at_10 = math.sqrt(float((layer_norms[1] ** 2).sum()))
    assert at_10 == pytest.approx(norms[10], rel=1e-3)  # before clipping, as Trainer logs it
    weights = history.layers.values("weight_norm")[2]
    parameters = dict(made.model.named_parameters())
    assert weights[-1] == pytest.approx([float(parameters[name].detach().norm()) for name in names], rel=1e-5)


def test_the_run_is_served_like_one_of_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path / "out", TrimtabCallback(tmp_path / "run"))
    run = RunDirectory.open(tmp_path / "run")
    assert run.status() == "finished"
    case = open_case(run)
    assert case.target == "huggingface"
    assert case.planned_steps == 30
    assert case.fact("tokenizer", "vocabulary_size") == 61
    assert case.fact("optimizer") == "AdamW"
    first = case.fact("first_batch")
    assert first["repeats_differ"] == 0.0
    assert first["future_changes"] < 1e-4
    assert first["sum_to_one"] == 0.0
    assert case.fact("evaluated_in_training_mode") is False
    assert case.number("parameters", "frozen") == 0
    assert case.number("epochs") == pytest.approx(30 / 16)
    assert case.setting("optimizer.learning_rate") == 3e-3
    assert run.read_json(run.environment)["source"] == "huggingface"
    text = render(summarize(run))
    assert "finished" in text
    assert "report" in text.splitlines()[-1]
    with pytest.raises(UsageError, match="made by transformers' Trainer"):
        run.refuse_foreign()
    assert run.diagnosis.exists()
    assert run.report.exists()
    assert "trimtab: " in capsys.readouterr().err


def test_the_weights_are_the_same_with_and_without(tmp_path: Path) -> None:
    with_it = fit(tmp_path / "a", TrimtabCallback(tmp_path / "run", report=False, every=1)).model.state_dict()
    without = fit(tmp_path / "b").model.state_dict()
    assert all(torch.equal(with_it[name], tensor) for name, tensor in without.items())


def test_nan_that_trainer_hides_is_seen(tmp_path: Path) -> None:
    class Poisoned(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            if state.global_step == 12:
                with torch.no_grad():
                    model.lm_head.weight[0, 0] = math.nan

    made = fit(tmp_path / "out", TrimtabCallback(tmp_path / "run"), Poisoned())
    assert all(math.isfinite(entry["loss"]) for entry in made.state.log_history if "loss" in entry)
    series = history_of(tmp_path / "run").get("train/loss")
    assert series is not None
    assert series.first_bad_step == 13


def test_a_loss_that_is_not_the_models_is_taken_from_the_log(tmp_path: Path) -> None:
    class Doubled(transformers.Trainer):  # type: ignore[misc, name-defined]
        def compute_loss(self, *arguments: Any, **named: Any) -> Any:
            loss = super().compute_loss(*arguments, **named)
            return (2 * loss[0], *loss[1:]) if isinstance(loss, tuple) else 2 * loss

    made = fit(tmp_path / "out", TrimtabCallback(tmp_path / "run"), kind=Doubled)
    logged = {entry["step"]: entry["loss"] for entry in made.state.log_history if "loss" in entry}
    losses = values(history_of(tmp_path / "run"), "train/loss")
    assert losses == pytest.approx(logged)
    assert values(history_of(tmp_path / "run"), "learning_rate").keys() == set(range(1, 31))


def test_an_evaluation_between_two_logs_leaves_the_comparison_whole(tmp_path: Path) -> None:
    callback = TrimtabCallback(tmp_path / "run", report=False)
    fit(tmp_path / "out", callback, eval_steps=7, learning_rate=1.0, max_grad_norm=0.0)
    assert list(values(history_of(tmp_path / "run"), "train/loss")) == list(range(1, 31))


def test_stopping_early_and_training_again(tmp_path: Path) -> None:
    class Stop(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = state.global_step == 7

    callback = TrimtabCallback(tmp_path / "run", report=False)
    fit(tmp_path / "out", callback, Stop())
    assert RunDirectory(tmp_path / "run").status() == "stopped"
    assert callback.run == tmp_path / "run"
    again = trainer(tmp_path / "out", callback, steps=5)
    again.train()
    assert callback.run == tmp_path / "run-2"
    assert RunDirectory(tmp_path / "run-2").status() == "finished"


def test_an_attempt_after_one_that_failed_is_the_same_run(tmp_path: Path) -> None:
    class Fails(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 17:
                raise RuntimeError("out of patience")

    settings = {"save_strategy": "steps", "save_steps": 10}
    made = trainer(tmp_path / "out", TrimtabCallback(tmp_path / "run", report=False), Fails(), **settings)
    with pytest.raises(RuntimeError, match="out of patience"):
        made.train()
    made = trainer(tmp_path / "out", TrimtabCallback(tmp_path / "run", report=False), **settings)
    made.train(resume_from_checkpoint=True)
    run = RunDirectory(tmp_path / "run")
    assert run.status() == "finished"
    assert [(line["attempt"], line["resumed_from"]) for line in run.attempts()] == [(1, None), (2, 10)]
    assert [line["status"] for line in read_record(run.record, all_branches=True) if line["event"] == "RunEnded"] == [
        "interrupted",
        "finished",
    ]
    history = history_of(run.path)
    losses = values(history, "train/loss")
    assert list(losses) == list(range(1, 31))
    logged = [entry for entry in made.state.log_history if "loss" in entry]
    assert np.mean([losses[step] for step in range(11, 16)]) == pytest.approx(logged[2]["loss"], rel=1e-5)


@pytest.mark.parametrize(
    "part", ["data_came", "before_update", "step_ended", "take_losses", "evaluated", "close", "loss"]
)
def test_what_fails_in_it_is_one_warning(tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from trimtab.integrations.watch import Watch

    def fails(*arguments: Any, **named: Any) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(Watch, part, fails)
    made = trainer(tmp_path / "out", TrimtabCallback(tmp_path / "run"), steps=12)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made.train()
    assert made.state.global_step == 12
    assert sum("no longer observes" in str(warning.message) for warning in caught) == 1
    assert not (tmp_path / "run" / "lock.json").exists()


def test_a_directory_that_cannot_be_is_one_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    made = trainer(tmp_path / "out", TrimtabCallback(tmp_path / "file" / "run"), steps=3)
    with pytest.warns(RuntimeWarning, match="no longer observes"):
        made.train()
    assert made.state.global_step == 3


@pytest.mark.parametrize(("error", "status"), [(ValueError("x"), "failed"), (KeyboardInterrupt(), "interrupted")])
def test_a_trainer_that_is_dropped_leaves_its_end(
    tmp_path: Path, error: BaseException, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fails(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 12:
                raise error

    made = trainer(tmp_path / "out", TrimtabCallback(tmp_path / "run"), Fails())
    with pytest.raises(type(error)):
        made.train()
    assert RunDirectory(tmp_path / "run").status() == "running"
    monkeypatch.setattr(sys, "last_value", error, raising=False)  # as the interpreter does
    error.__traceback__ = None
    del made
    gc.collect()
    assert RunDirectory(tmp_path / "run").status() == status
    assert list(values(history_of(tmp_path / "run"), "train/loss")) == list(range(1, 11))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "status"), [("fault", "failed"), ("hand", "interrupted")])
def test_a_process_that_ends_badly_leaves_its_end(tmp_path: Path, name: str, status: str) -> None:
    code = f"""
import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]
import pathlib, test_huggingface as t
class Fails(t.transformers.TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 7: raise KeyboardInterrupt if sys.argv[2] == "hand" else ValueError("nothing left")
folder = pathlib.Path(sys.argv[1])
t.trainer(folder / "out", t.TrimtabCallback(folder / sys.argv[2]), Fails()).train()
"""
    line = [sys.executable, "-c", code, str(tmp_path), name]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    run = RunDirectory(tmp_path / name)
    assert run.status() == status, done.stderr
    ended = history_of(run.path).ended
    assert ended is not None
    assert ("nothing left" in ended.reason) == (name == "fault")
    assert len(values(history_of(run.path), "train/loss")) >= 1


def test_its_own_state_file_tells_the_same(tmp_path: Path) -> None:
    made = fit(tmp_path / "out", TrimtabCallback(tmp_path / "run", report=False))
    made.save_state()
    imported = read_foreign(tmp_path / "out")
    ours = history_of(tmp_path / "run")
    assert values(imported.history, "validation/loss") == values(ours, "validation/loss")
    assert imported.history.total_steps == ours.total_steps == 30
    assert imported.facts["epochs"] == pytest.approx(30 / 16)


def test_an_evaluation_in_training_mode_is_seen(tmp_path: Path) -> None:
    class Careless(transformers.Trainer):  # type: ignore[misc, name-defined]
        def evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
            self.model.train()
            with torch.no_grad():
                loss = self.model(TOKENS[:4], labels=TOKENS[:4]).loss
            self.log({"eval_loss": float(loss)})
            self.callback_handler.on_evaluate(self.args, self.state, self.control, {"eval_loss": float(loss)})
            return {"eval_loss": float(loss)}

    fit(tmp_path / "out", TrimtabCallback(tmp_path / "run", report=False), kind=Careless, steps=10)
    case = open_case(RunDirectory.open(tmp_path / "run"))
    assert case.fact("evaluated_in_training_mode") is True
    assert [one.confidence for one in RULES["evaluated-in-training-mode"](case)] == [0.9]


def test_a_second_training_after_one_that_raised_is_watched_as_the_first(tmp_path: Path) -> None:
    class Raises(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 12:
                raise ValueError("asked to")

    raises, callback = Raises(), TrimtabCallback(tmp_path / "run", report=False)
    made = trainer(tmp_path / "out", callback, raises)
    with pytest.raises(ValueError, match="asked to"):
        made.train()
    made.remove_callback(raises)
    made.train()
    assert not made.model._forward_hooks
    assert not made.model._forward_pre_hooks
    run = RunDirectory(tmp_path / "run")
    assert run.read_json(run.facts)["evaluated_in_training_mode"] is False
    losses = values(history_of(tmp_path / "run"), "train/loss")
    entry = next(entry for entry in reversed(made.state.log_history) if "loss" in entry)
    assert np.mean([losses[step] for step in range(26, 31)]) == pytest.approx(entry["loss"], rel=1e-5)


@pytest.mark.parametrize("labels", [torch.ones(3), 2])
def test_labels_that_are_asked_one_by_one_are_no_classes(tmp_path: Path, labels: Any) -> None:
    made = trainer(tmp_path / "out", TrimtabCallback(tmp_path / "run", report=False), steps=2)
    settings = {"vocab_size": 61, "n_embd": 16, "n_layer": 1, "n_head": 2, "num_labels": 3, "pad_token_id": 0}
    made.model = made.model_wrapped = transformers.GPT2ForSequenceClassification(transformers.GPT2Config(**settings))
    made.train_dataset = made.eval_dataset = [{"input_ids": row, "labels": labels} for row in TOKENS]
    made.train()
    run = RunDirectory(tmp_path / "run")
    assert run.read_json(run.facts)["num_classes"] == (None if isinstance(labels, torch.Tensor) else 3)


def test_a_model_that_is_compiled_where_it_is_trains_as_without(tmp_path: Path) -> None:
    logged = []
    for callbacks in ([], [TrimtabCallback(tmp_path / "run", report=False)]):
        made = trainer(tmp_path / "out", *callbacks, steps=5)
        made.model.compile(backend="eager")
        made.train()
        logged.append([entry["loss"] for entry in made.state.log_history if "loss" in entry])
    assert logged[0] == logged[1]
    assert values(history_of(tmp_path / "run"), "train/loss") == {5: logged[0][0]}
