"""Every task from rows of real text to a trained model, through the trainer and the command line."""

from __future__ import annotations

import inspect
import json
import math
import os
import subprocess
import sys
import textwrap
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trimtab import ClassificationTrainer, Trainer, load_config
from trimtab.cli.answers import predict
from trimtab.cli.models import generate
from trimtab.config.fit import leading_curves
from trimtab.data import LabelledTexts, prepare_data
from trimtab.doctor.load import open_case
from trimtab.errors import ConfigError, UsageError
from trimtab.events import Advise, DecisionTaken, EvaluationEnded, Event, StepsEnded
from trimtab.monitor.sinks.console_texts import evaluation_line
from trimtab.report.evaluations import evaluations_of
from trimtab.report.gather import gather
from trimtab.runs import RunDirectory
from trimtab.runs.leading import leading_of
from trimtab.runs.record import read_attempts
from trimtab.signals import IGNORED
from trimtab.trainer import Result
from trimtab.training.judging import build_evaluation, examine
from trimtab.training.trained import open_trained

ENCODER = {"name": "encoder", "num_layers": 1, "hidden_size": 32, "num_heads": 2, "dropout": {"residual": 0.1}}
PAIRS = {**ENCODER, "name": "encoder_decoder"}

TASKS: dict[str, dict[str, Any]] = {
    "classification": {"task": {"name": "classification", "class_weights": "balanced"}},
    "multi_label": {
        "task": {"name": "classification", "label": "labels", "multi_label": True},
        "objective": {"name": "binary_cross_entropy"},
    },
    "token_classification": {"task": {"name": "token_classification"}, "objective": {"name": "focal"}},
    "regression": {"task": {"name": "regression"}, "objective": {"name": "huber"}},
    "seq2seq": {"task": {"name": "seq2seq", "target_length": 12}, "model": PAIRS},
    "contrastive": {
        "task": {"name": "contrastive", "second": "target", "projection": 12},
        "objective": {"name": "info_nce", "learn_temperature": True},
    },
    "contrastive_classes": {
        "task": {"name": "contrastive", "label": "label"},
        "objective": {"name": "supervised_contrastive"},
    },
    "mlp": {
        "task": {"name": "regression"},
        "objective": {"name": "mse"},
        "model": {"name": "mlp", "hidden_size": 16, "layer_size": 24, "dropout": {"hidden": 0.1}},
        "averaging": {"name": "ema", "decay": 0.9, "batch_norm_batches": 4},
    },
    "cnn": {"task": {"name": "classification"}, "model": {"name": "cnn", "hidden_size": 16, "num_filters": 12}},
    "decoder": {"task": {"name": "classification"}, "model": {**ENCODER, "name": "decoder"}},
    "masked_lm": {"task": {"name": "masked_lm"}, "evaluation": {"every": 8, "gap_tokens": 512, "max_tokens": 2048}},
}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines of the standard library, and what can be said of them."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    sources = (inspect.getsource(module) for module in (textwrap, inspect, json))
    lines = sorted({line.strip() for source in sources for line in source.split("\n")})
    with path.open("w") as file:
        for line in (line for line in lines if len(line.split()) > 1):
            words = line.split()[:20]
            row = {
                "text": " ".join(words),
                "label": "comment" if line[0] in "#\"'" else "code",
                "labels": [name for name, sign in (("call", "("), ("set", "="), ("dot", ".")) if sign in line],
                "tags": ["sign" if not word.isidentifier() else "name" for word in words],
                "value": float(len(line)),
                "target": words[0],
            }
            print(json.dumps(row), file=file)
    return path


def settings(name: str, rows: Path, **more: Any) -> dict[str, Any]:
    source = {"name": "jsonl", "path": str(rows)}
    return {
        "model": ENCODER,
        "optimizer": {"name": "adamw", "learning_rate": 5e-3},
        "training": {"steps": 24, "micro_batch_size": 8, "accumulation": 2},
        "evaluation": {"every": 8, "gap_tokens": 512},
        "data": {"source": source, "tokenizer": {"name": "bytes"}, "sequence_length": 48},
        **TASKS[name],
        **more,
    }


class Leaves:
    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded) and event.last_step >= 10:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in ("cnn", "decoder") else name for name in TASKS]
)
def test_a_task_trains_resumes_to_the_same_bits_and_is_judged_again(
    name: str, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(settings(name, rows, logging={"every": 5}), environment={})
    whole = Trainer(config, run=tmp_path / "whole")
    result = whole.fit()
    assert result.status == "finished"
    assert result.metrics["validation/loss"] > 0
    assert set(leading_curves(config)) <= set(result.metrics)
    if name == "classification":
        _is_told_by_its_accuracy(result)
    with pytest.raises(KeyboardInterrupt):
        Trainer(config, run=tmp_path / "parts", monitors=[Leaves()]).fit()
    again = Trainer(config, run=tmp_path / "parts")
    assert again.fit().metrics == result.metrics
    assert [line["resumed_from"] for line in read_attempts(tmp_path / "parts/record.jsonl")][1:] != [None]
    ours, theirs = whole.trained()[0].state_dict(), again.trained()[0].state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)

    trained = open_trained(tmp_path / "whole", "best")
    data = prepare_data(config.data, config.task, seed=config.seed)
    assert data.fingerprint == trained.fingerprint
    options: dict[str, Any] = {"max_tokens": 3, "temperature": 0.8, "top_k": 50, "seed": 0, "checkpoint": "best"}
    write = partial(generate, tmp_path / "whole", **options)
    if name == "seq2seq":
        write(prompt="def f(x):")
        assert capsys.readouterr().out
    with pytest.raises(UsageError, match="after reading a text" if name == "seq2seq" else "writes nothing"):
        write(prompt="")
    metrics = build_evaluation(config, trained.model, data).metrics()
    assert metrics == pytest.approx({key: result.metrics[key] for key in metrics}, rel=1e-5)


def _is_told_by_its_accuracy(result: Result) -> None:
    """The best checkpoint, and what console, report and doctor show first."""
    run = RunDirectory(result.run)
    lines = [json.loads(line) for line in run.record.read_text().splitlines() if "EvaluationEnded" in line]
    judged = {line["step"]: line["metrics"]["validation/accuracy"] for line in lines}
    assert result.best_step == max(judged, key=lambda step: (judged[step], -step))
    assert result.diagnosis is not None
    assert "; the best accuracy is " in result.diagnosis.summary
    case = open_case(run)
    report = gather(run, case, result.diagnosis)
    assert evaluations_of(report).names[:3] == ("accuracy", "macro f1", "loss")
    assert "validation macro f1" in [figure.label for figure in report.figures]
    event = EvaluationEnded(3, {"validation/loss": 1.5, "validation/accuracy": 0.5, "validation/macro_f1": 0.25}, 1.0)
    told = evaluation_line(event, "validation/accuracy", leading_of(case.facts)).plain
    assert told == "val 1.5000   accuracy 50.0 %   macro f1 25.0 %"


def test_an_epoch_of_texts_is_an_epoch_in_the_schedule(rows: Path, tmp_path: Path) -> None:
    """Texts are shorter than data.sequence_length: an epoch is so many steps as it takes to read each once."""

    class Rates:
        def __init__(self) -> None:
            self.found: list[float] = []

        def observe(self, event: Event) -> None:
            if isinstance(event, StepsEnded):
                self.found += list(event.per_step["learning_rate"])

    schedule = {"name": "triangular", "rise": "1 epochs"}
    training = {"steps": 60, "micro_batch_size": 64}
    config = load_config(settings("classification", rows, schedule=schedule, training=training), environment={})
    rates = Rates()
    trainer = Trainer(config, run=tmp_path / "run", monitors=[rates])
    trainer.fit()
    assert trainer.data is not None
    assert rates.found.index(max(rates.found)) + 1 == pytest.approx(len(trainer.data.training) / 64, abs=1.5)


def test_a_classifier_in_ten_lines(rows: Path, tmp_path: Path) -> None:
    trainer = ClassificationTrainer(
        rows,
        settings={
            "model": ENCODER,
            "data.tokenizer": {"name": "bytes"},
            "data.sequence_length": 48,
            "optimizer.learning_rate": 1e-2,
            "training.steps": 80,
            "training.micro_batch_size": 16,
            "evaluation.every": 20,
        },
        run=tmp_path / "run",
        progress=False,
    )
    trainer.fit()
    assert trainer.classes == ("code", "comment")
    texts = ["# what is said of it", "x = call(y)", "# " + "much more " * 9]
    answers = trainer.predict(texts)
    assert set(answers) <= set(trainer.classes)
    assert [trainer.predict([text])[0] for text in texts] == answers
    assert trainer.predict([]) == []
    held_out = trainer._trainer.trained()[1].validation
    counts = torch.bincount(held_out.batch(torch.arange(len(held_out)).numpy()).targets)
    assert trainer.compute_accuracy() > float(counts.max() / counts.sum())


class CountsLetters(nn.Module):
    """Classes by which bytes a text has, wherever they stand."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Embedding(257, 2)

    def forward(self, tokens_BT: Tensor, mask_BT: Tensor) -> Tensor:
        scores_B2: Tensor = (self.scores(tokens_BT) * mask_BT[..., None]).sum(1)
        return scores_B2


def test_a_classifier_of_a_module_of_your_own(rows: Path, tmp_path: Path) -> None:
    trainer = ClassificationTrainer(
        rows,
        settings={"data.tokenizer": {"name": "bytes"}, "data.sequence_length": 48, "training.steps": 2},
        model=CountsLetters(),
        run=tmp_path / "run",
        progress=False,
    )
    trainer.fit()
    assert isinstance(trainer.model.get_submodule("module"), CountsLetters)
    assert set(trainer.predict(["# what is said of it", "x = call(y)"])) <= {"code", "comment"}


def test_each_word_gets_its_class(rows: Path, tmp_path: Path) -> None:
    config = load_config(settings("token_classification", rows, training={"steps": 2}), environment={})
    trainer = Trainer(config, run=tmp_path / "run")
    trainer.fit()
    texts = ["ab", "a much longer text here", "wide " * 20]
    answers = trainer.predict(texts)
    assert [len(answer) for answer in answers] == [1, 5, 20]
    assert all(torch.equal(trainer.predict([text])[0], answer) for text, answer in zip(texts, answers, strict=True))
    assert set(torch.cat(answers[:2]).tolist()) <= {0, 1}
    # The text has 48 positions, the first of them an end of text: nine words begin and one more is "wide".
    assert (answers[2] != IGNORED).tolist() == [True] * 10 + [False] * 10

    # As the model is asked in evaluation: at the first token of each word.
    data = trainer.trained()[1].validation
    assert isinstance(data, LabelledTexts)
    tokenizer = trainer.trained()[1].tokenizer
    texts = [tokenizer.decode(data.row(index).tolist()) for index in range(20)]
    batch = data.batch(torch.arange(20).numpy())
    model = trainer.trained()[0].eval()
    with torch.no_grad():
        classes = model(batch.tokens_BT, batch.positions_BT, batch.document_ids_BT).logits.argmax(-1)
    for row, answer in enumerate(trainer.predict(texts)):
        asked = classes[row][batch.targets[row] != IGNORED]
        assert answer[answer != IGNORED].tolist() == asked.tolist()


@pytest.mark.parametrize("name", ["contrastive", "contrastive_classes"])
def test_vectors_of_texts_are_given_and_their_metrics_are_of_what_is_judged_at_once(
    name: str, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more: dict[str, Any] = {
        "training": {"steps": 2, "micro_batch_size": 4, "accumulation": 2}
        if name == "contrastive"
        else {"steps": 2, "batch_size": 8, "micro_batch_size": "auto"},
        "evaluation": {"every": 2},
        "logging": {"examine": {"every": 1, "which": "all"}},
    }
    trainer = Trainer(load_config(settings(name, rows, **more), environment={}), run=tmp_path / "run")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*left out from here on")
        assert trainer.fit().metrics["validation/alignment"] >= 0.0
    evaluation = build_evaluation(trainer.config, *trainer.trained())
    assert evaluation.batch_size == 8
    (alone,) = trainer.predict(["def f(x):"])
    beside = trainer.predict(["import json", "def f(x):"])[1]
    torch.testing.assert_close(alone, beside, rtol=1e-5, atol=1e-6)
    assert float(alone.norm()) == pytest.approx(1.0, rel=1e-5)
    options: dict[str, Any] = {"passes": 0, "explain": False, "checkpoint": "best", "weights": None}
    predict(tmp_path / "run", ["def f(x):"], None, beside=None, as_json=True, **options)
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    assert answer["vector"] == pytest.approx(alone.tolist(), rel=1e-5, abs=1e-6)
    predict(tmp_path / "run", ["def f(x):"], None, beside=None, as_json=False, **options)
    assert len(capsys.readouterr().out.partition("\t")[0].split()) == len(alone)
    found = examine(RunDirectory.open(tmp_path / "run"), trainer.config, *trainer.trained(), 2, "plain")
    assert "classes" not in found
    assert found["metrics"]["validation/loss"] == pytest.approx(trainer.evaluate()["validation/loss"], rel=1e-6)


@pytest.mark.parametrize("name", ["masked_lm", "seq2seq"])
def test_a_task_without_an_answer_of_its_own_predicts_nothing(name: str, rows: Path, tmp_path: Path) -> None:
    config = load_config(settings(name, rows, training={"steps": 1}), environment={})
    trainer = Trainer(config, run=tmp_path / "run")
    trainer.fit()
    with pytest.raises(UsageError, match=f"task {name} has no answer that could be predicted"):
        trainer.predict(["ab"])


def test_a_metric_that_is_not_measured_is_refused_or_told(rows: Path, tmp_path: Path) -> None:
    """F1 is of two classes, which the data alone says; R² of equal numbers is not defined."""
    by_f1 = {"task": {"name": "classification", "label": "kind"}, "checkpoint": {"metric": "validation/f1"}}
    by_f1["stopping"] = {"name": "none"}
    numbered = tmp_path / "numbered.jsonl"
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    numbered.write_text("".join(json.dumps({**row, "kind": i % 3}) + "\n" for i, row in enumerate(lines)))
    config = load_config(settings("classification", numbered, **by_f1), environment={})
    with pytest.raises(ConfigError, match=r"checkpoint.metric validation/f1 is of two classes, and here are 3"):
        Trainer(config, run=tmp_path / "f1").fit()

    equal = tmp_path / "equal.jsonl"
    equal.write_text("".join(json.dumps({"text": f"text {i}", "value": 0.1}) + "\n" for i in range(9)))
    source = {"name": "jsonl", "path": str(rows)}
    data = {
        "source": source,
        "validation_source": {"name": "jsonl", "path": str(equal)},
        "tokenizer": {"name": "bytes"},
    }
    config = load_config(
        settings("regression", rows, data=data, checkpoint={"metric": "validation/r2"}, stopping={"name": "none"}),
        environment={},
    )
    told: list[str] = []

    class Listens:
        def observe(self, event: Event) -> None:
            if isinstance(event, DecisionTaken) and isinstance(event.decision, Advise):
                told.append(event.decision.reason)

    result = Trainer(config, run=tmp_path / "r2", monitors=[Listens()]).fit()
    assert math.isnan(result.metrics["validation/r2"])
    (reason,) = [one for one in told if "validation/r2" in one]
    assert reason.startswith("validation/r2 is not finite: until it is, no checkpoint is kept as the best")


def test_f1_of_an_average_chooses_and_is_refused_where_there_are_more_classes(rows: Path, tmp_path: Path) -> None:
    metric = "validation/f1@ema"
    by_f1: dict[str, Any] = {
        "task": {"name": "classification"},
        "averaging": {"name": "ema", "decay": 0.8},
        "checkpoint": {"metric": metric, "keep_latest": 9},
        "stopping": {"name": "patience", "patience": 9, "metric": metric},
        "optimizer_switch": {"patience": 8, "metric": metric, "to": {"name": "sgd"}},
    }
    seen: dict[int, float] = {}

    class Watches:
        def observe(self, event: Event) -> None:
            if isinstance(event, EvaluationEnded):
                seen[event.step] = event.metrics[metric]
                assert "validation/f1" in event.metrics

    config = load_config(settings("classification", rows, **by_f1), environment={})
    result = Trainer(config, run=tmp_path / "run", monitors=[Watches()]).fit()
    best = max(seen.values())
    assert result.best_step == next(step for step, value in seen.items() if value == best)
    opened = open_trained(tmp_path / "run")
    assert (opened.weights, opened.checkpoint.step) == ("ema", result.best_step)
    data = prepare_data(config.data, config.task, seed=config.seed)
    assert build_evaluation(config, opened.model, data).metrics()["validation/f1"] == pytest.approx(best)

    numbered = tmp_path / "numbered.jsonl"
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    numbered.write_text("".join(json.dumps({**row, "label": i % 3}) + "\n" for i, row in enumerate(lines)))
    config = load_config(settings("classification", numbered, **by_f1), environment={})
    with pytest.raises(ConfigError) as caught:
        Trainer(config, run=tmp_path / "three").fit()
    for key in ("checkpoint.metric", "stopping.metric", "optimizer_switch.metric"):
        assert f"{key} {metric} is of two classes, and here are 3" in str(caught.value)


def test_several_labels_from_python(rows: Path, tmp_path: Path) -> None:
    trainer = ClassificationTrainer(
        rows,
        label="labels",
        multi_label=True,
        settings={"model": ENCODER, "data.tokenizer": {"name": "bytes"}, "training.steps": 2},
        run=tmp_path / "run",
        progress=False,
    )
    trainer.fit()
    (labels,) = trainer.predict(["x = call(y)"])
    assert isinstance(labels, list)
    assert set(labels) <= {"call", "set", "dot"}


def test_from_the_command_line(rows: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(settings("regression", rows)))

    def trimtab(*arguments: str) -> str:
        command = [sys.executable, "-m", "trimtab.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
        assert done.returncode == 0, done.stderr
        return done.stdout

    run = str(tmp_path / "run")
    assert f"evaluate {run}" in trimtab("train", str(config), "--run", run)
    metrics = json.loads(trimtab("evaluate", run, "--json"))["metrics"]
    assert {"validation/rmse", "validation/mae", "validation/r2"} <= set(metrics)
    assert RunDirectory.open(Path(run)).read_json(RunDirectory(Path(run)).facts)["targets"]["deviation"] > 1
    assert "evaluate" in trimtab("show", run)


@pytest.mark.parametrize(
    "name,more,message",
    [
        ("classification", {"objective": {"name": "mse"}}, "objective.name mse does not fit task classification"),
        ("classification", {"objective": {"name": "mse"}}, "(Golik et al. 2013, Interspeech). Fitting: cross_entropy"),
        ("multi_label", {"objective": {"name": "focal"}}, "Fitting: binary_cross_entropy"),
        ("regression", {"objective": {"name": "cross_entropy"}}, "Fitting: mse, rmse, mae, huber, quantile, log_cosh"),
        ("seq2seq", {"model": ENCODER}, "Fitting: encoder_decoder"),
        ("masked_lm", {"model": {**ENCODER, "name": "decoder"}}, "hidden tokens are predicted from both sides"),
        ("regression", {"evaluation": {"samples": {"max_tokens": 5}}}, "samples are what a model writes"),
        ("regression", {"objective": {"name": "rmse"}, "training": {"accumulation": 2}}, "no sum over micro-batches"),
        ("classification", {"objective": {"mmce": 1.0}, "training": {"batch_size": 64}}, "no sum over micro-batches"),
        ("seq2seq", {"objective": {"mmce": 1.0}}, "has too many"),
        ("regression", {"checkpoint": {"metric": "validation/accuracy"}}, "is not measured with task regression"),
        (
            "regression",
            {"checkpoint": {"metric": "validation/accuracy"}},
            "exactly right, and of numbers hardly one is",
        ),
        (
            "classification",
            {"stopping": {"name": "patience", "metric": "validation/r2"}},
            "Fitting: validation/accuracy",
        ),
        ("token_classification", {"model": {**ENCODER, "pooling": "first"}}, "asks about each token"),
        ("contrastive", {"objective": {"name": "supervised_contrastive"}}, "Fitting: info_nce"),
        ("contrastive_classes", {"objective": {"name": "info_nce"}}, "with label: texts of one class"),
        ("contrastive", {"logging": {"noise_scale": {"every": 2}}}, "compares their texts with each other"),
        (
            "contrastive_classes",
            {"task": {"name": "contrastive", "label": "label", "second": "target"}},
            "task.second: has no effect",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(name: str, more: dict[str, Any], message: str, rows: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(settings(name, rows, **more), environment={})
    assert message in str(caught.value)


def test_a_module_from_outside_is_refused_where_vectors_are_asked_for(rows: Path, tmp_path: Path) -> None:
    config = load_config(settings("contrastive", rows), environment={})
    with pytest.raises(ConfigError, match="task contrastive makes vectors with a head of trimtab's"):
        Trainer(config, run=tmp_path / "run", model=torch.nn.Embedding(257, 257)).fit()


def test_answers_are_compared_with_what_was_wanted(rows: Path, tmp_path: Path) -> None:
    more = {"evaluation": {"every": 12, "gap_tokens": 0, "decoded": 5}}
    config = load_config(settings("seq2seq", rows, **more), environment={})
    result = Trainer(config, run=tmp_path / "run").fit()
    assert 0.0 <= result.metrics["validation/rouge_l"] <= result.metrics["validation/rouge_1"] <= 1.0
    assert 0.0 <= result.metrics["validation/chrf"] <= 100.0
    with pytest.raises(ConfigError, match=r"evaluation\.decoded is 0"):
        load_config(settings("seq2seq", rows, checkpoint={"metric": "validation/bleu"}), environment={})
    with pytest.raises(ConfigError, match="it is another"):
        load_config(settings("regression", rows, **more), environment={})
