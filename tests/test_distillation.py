"""Runs that learn from a teacher: a run or a folder, frozen, named by hash, checked; resumed to the same bits."""

from __future__ import annotations

import inspect
import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtab import Trainer, load_config
from trimtab.config.paths import require_paths, with_absolute_paths
from trimtab.data import prepare_data
from trimtab.errors import ConfigError, DataError, DriftError
from trimtab.events import Event, StepsEnded
from trimtab.runs.checkpoints import list_checkpoints
from trimtab.training.judging import build_evaluation
from trimtab.training.trained import open_trained

SMALL = {"name": "encoder", "num_layers": 1, "hidden_size": 16, "num_heads": 2, "dropout": {"residual": 0.1}}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    lines = {line.strip() for module in (textwrap, inspect) for line in inspect.getsource(module).split("\n")}
    with path.open("w") as file:
        for line in sorted(line for line in lines if len(line.split()) > 1):
            row = {"text": line, "label": "comment" if line[0] in "#\"'" else "code", "target": line.split()[0]}
            print(json.dumps(row), file=file)
    return path


def settings(task: str, rows: Path, teacher: Path | None = None, **more: Any) -> dict[str, Any]:
    distillation = None if teacher is None else {"teacher": str(teacher), "temperature": 3.0, "weight": 0.5}
    names = {"causal_lm": "decoder", "seq2seq": "encoder_decoder"}
    return {
        "task": {"name": task},
        "model": {**SMALL, "name": names.get(task, "encoder")},
        "objective": {"name": "cross_entropy", "distillation": distillation},
        "optimizer": {"name": "adamw", "learning_rate": 5e-3},
        "training": {"steps": 12, "micro_batch_size": 4, "accumulation": 2},
        "evaluation": {"every": 6, "gap_tokens": 0, "max_tokens": 1024, "entropy": True}
        | ({"yardsticks": False} if task == "causal_lm" else {}),
        "logging": {"every": 5},
        "data": {
            "source": {"name": "jsonl", "path": str(rows)},
            "tokenizer": {"name": "bytes"},
            "sequence_length": 32,
        },
        **more,
    }


def trainer_of(run: Path, task: str, rows: Path, teacher: Path | None = None, **more: Any) -> Trainer:
    monitors = more.pop("monitors", ())
    return Trainer(load_config(settings(task, rows, teacher, **more), environment={}), run=run, monitors=list(monitors))


class Leaves:
    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded) and event.last_step >= 8:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "task",
    ["classification", "seq2seq", *(pytest.param(one, marks=pytest.mark.slow) for one in ("causal_lm", "masked_lm"))],
)
def test_a_run_learns_from_a_run_and_resumes_to_the_same_bits(task: str, rows: Path, tmp_path: Path) -> None:
    first = trainer_of(tmp_path / "teacher", task, rows).fit()
    assert first.metrics["validation/entropy"] > 0.0
    assert "validation/teacher_divergence" not in first.metrics
    wide = {"model": {**settings(task, rows)["model"], "hidden_size": 24}}
    whole = trainer_of(tmp_path / "whole", task, rows, tmp_path / "teacher", **wide)
    result = whole.fit()
    assert result.metrics["validation/teacher_divergence"] > 0.0
    with pytest.raises(KeyboardInterrupt):
        trainer_of(tmp_path / "parts", task, rows, tmp_path / "teacher", **wide, monitors=[Leaves()]).fit()
    again = trainer_of(tmp_path / "parts", task, rows, tmp_path / "teacher", **wide)
    assert again.fit().metrics == result.metrics
    ours, theirs = whole.trained()[0].state_dict(), again.trained()[0].state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    # The teacher is in no checkpoint, but its hash is.
    held = json.loads((list_checkpoints(tmp_path / "whole")[-1].path / "checkpoint.json").read_bytes())
    identity = json.loads((tmp_path / "whole/facts.json").read_bytes())["identity"]
    assert held["teacher"] == identity["teacher"]
    assert not any("teacher" in name for name in held["tensors"])


def test_a_student_comes_nearer_to_its_teacher(rows: Path, tmp_path: Path) -> None:
    trainer_of(tmp_path / "teacher", "classification", rows).fit()
    before = open_trained(tmp_path / "teacher").model.state_dict()
    near = {}
    for weight in (1e-9, 20.0):
        config = settings("classification", rows, tmp_path / "teacher", seed=5)
        config["objective"]["distillation"] |= {"weight": weight, "temperature": 1.0}
        result = Trainer(load_config(config, environment={}), run=tmp_path / f"{weight}").fit()
        near[weight] = result.metrics["validation/teacher_divergence"]
    assert near[20.0] < near[1e-9]
    # To judge the student no teacher is needed.
    student = open_trained(tmp_path / "20.0")
    (tmp_path / "teacher").rename(tmp_path / "elsewhere")
    data = prepare_data(student.config.data, student.config.task, seed=student.config.seed)
    judged = build_evaluation(student.config, student.model, data).metrics()
    assert judged["validation/loss"] == pytest.approx(result.metrics["validation/loss"], rel=1e-5)
    assert "validation/teacher_divergence" not in judged
    after = open_trained(tmp_path / "elsewhere").model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_another_teacher_is_drift(rows: Path, tmp_path: Path) -> None:
    trainer_of(tmp_path / "teacher", "classification", rows).fit()
    with pytest.raises(KeyboardInterrupt):
        trainer_of(tmp_path / "run", "classification", rows, tmp_path / "teacher", monitors=[Leaves()]).fit()
    (tmp_path / "teacher").rename(tmp_path / "first")
    trainer_of(tmp_path / "teacher", "classification", rows, seed=3).fit()
    with pytest.raises(DriftError, match="teacher"):
        trainer_of(tmp_path / "run", "classification", rows, tmp_path / "teacher").fit()


def test_a_folder_of_transformers_teaches(rows: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from trimtab.export import export

    tiny = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = {"name": "hugging_face", "config": tiny | {"intermediate_size": 32}}
    trainer_of(tmp_path / "teacher", "classification", rows, model=model).fit()
    export(tmp_path / "teacher", "hugging-face", tmp_path / "folder")
    config = settings("classification", rows, tmp_path / "folder")
    with pytest.raises(ConfigError, match="makes other tokens"):
        Trainer(load_config(config, environment={}), run=tmp_path / "bytes").fit()
    config["data"]["tokenizer"] = {"name": "file", "path": str(tmp_path / "teacher/artifacts/tokenizer.json")}
    result = Trainer(load_config(config, environment={}), run=tmp_path / "run").fit()
    assert result.metrics["validation/teacher_divergence"] > 0.0
    kept = json.loads((tmp_path / "folder/config.json").read_bytes())
    kept["id2label"] = {"0": "comment", "1": "code"}
    (tmp_path / "folder/config.json").write_text(json.dumps(kept))
    with pytest.raises(ConfigError, match="its classes are comment, code, and those of this run are code, comment"):
        Trainer(load_config(config, environment={}), run=tmp_path / "other").fit()


@pytest.mark.parametrize(
    "more,message",
    [
        ({"task": {"name": "token_classification", "tags": "tags"}}, "its task is classification"),
        ({"data": {"tokenizer": {"name": "bpe", "vocabulary_size": 300}}}, "reads other tokens"),
        ({"data": {"sequence_length": 40}}, "sequences of 32 tokens at most"),
        ({"task": {"name": "classification", "label": "target"}}, "its classes are code, comment"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(more: dict[str, Any], message: str, rows: Path, tmp_path: Path) -> None:
    trainer_of(tmp_path / "teacher", "classification", rows, training={"steps": 1, "micro_batch_size": 4}).fit()
    tagged = tmp_path / "tagged.jsonl"
    with tagged.open("w") as file:
        for line in rows.read_text().splitlines():
            row = json.loads(line)
            tags = ["a" if word.isalpha() else "b" for word in row["text"].split()]
            print(json.dumps(row | {"tags": tags}), file=file)
    config = settings("classification", tagged, tmp_path / "teacher")
    for key, value in more.items():
        config[key] = config[key] | value if key == "data" else value
    with pytest.raises(ConfigError, match=message):
        Trainer(load_config(config, environment={}), run=tmp_path / "run").fit()


@pytest.mark.parametrize(
    "overrides,message",
    [
        (["objective={distillation: {teacher: runs/x}, fused: 'on'}"], "objective.fused: has no effect"),
        (["evaluation.entropy=true", "task.name=regression", "objective.name=mse"], "evaluation.entropy is of answers"),
    ],
)
def test_what_does_not_go_together_is_refused(overrides: list[str], message: str, rows: Path) -> None:
    base = [] if "fused" in message else ["model.name=encoder", f"data.source={{name: jsonl, path: {rows}}}"]
    with pytest.raises(ConfigError) as caught:
        load_config(None, [*base, *overrides], environment={})
    assert message in str(caught.value)


def test_a_teacher_that_is_not_there_is_told_before_torch(tmp_path: Path, rows: Path) -> None:
    config = load_config(settings("classification", rows, tmp_path / "nowhere"), environment={})
    with pytest.raises(DataError, match=r"objective\.distillation\.teacher: there is no run or folder"):
        require_paths(config)
    (tmp_path / "nowhere").mkdir()
    require_paths(config)


def test_a_teacher_is_found_from_every_folder(rows: Path) -> None:
    config = with_absolute_paths(load_config(settings("classification", rows, Path("runs/x")), environment={}))
    assert Path(config.objective.distillation.teacher).is_absolute()  # type: ignore[union-attr]
