"""A folder of labelled text becomes a calibrated, exported classifier by two commands."""

from __future__ import annotations

import inspect
import json
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_hugging_face import TINY
from typer.testing import CliRunner

from trimtab import ClassificationTrainer
from trimtab.cli import app
from trimtab.runs import RunDirectory
from trimtab.runs.files import read_json, write_json
from trimtab.training.consolidated import read_consolidated
from trimtab.training.predictor import open_predictor
from trimtab.training.trained import open_trained

QUICK = [
    "training.steps=60",
    "evaluation.every=20",
    "model.hidden_size=32",
    "model.num_heads=2",
    "data.sequence_length=48",
]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines of the standard library, sorted into code and comment."""
    root = tmp_path_factory.mktemp("labelled")
    lines = {line.strip() for module in (textwrap, inspect, json) for line in inspect.getsource(module).split("\n")}
    for number, line in enumerate(sorted(line for line in lines if len(line.split()) > 1)):
        place = root / ("comment" if line[0] in "#\"'" else "code") / f"{number}.txt"
        place.parent.mkdir(exist_ok=True)
        place.write_text(line)
    return root


def run_command(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_two_commands(folder: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    told = run_command("train", "classification", f"data.source.path={folder}", "--run", str(run), *QUICK)
    assert "temperature" in told
    exported: dict[str, Any] = json.loads(
        run_command("export", str(run), "--to", "safetensors", "--out", str(out), "--json")
    )
    assert exported["target"] == "safetensors"

    kept = read_json(RunDirectory(run).calibration)
    read = read_consolidated(out)
    assert read.targets.classes == ("code", "comment")
    assert read.temperature == kept["temperature"] == open_trained(run).temperature
    asked = ["# wrap the text at so many columns", "return self.text = lines[0]"]
    ours, theirs = (open_predictor(path).probabilities(asked) for path in (run, out))
    assert all(torch.allclose(one, other) for one, other in zip(ours, theirs, strict=True))
    # As the logits say it, divided by the temperature.
    predictor = open_predictor(out)
    plain = predictor.probabilities(asked[:1])[0].log()
    cold = replace(predictor, temperature=2 * kept["temperature"]).probabilities(asked[:1])[0].log()
    assert float(plain[0] - plain[1]) == pytest.approx(2 * float(cold[0] - cold[1]), rel=1e-6)

    found = json.loads(run_command("predict", str(out), *asked, "--json"))
    assert found["temperature"] == kept["temperature"]
    assert [one["class"] in read.targets.classes for one in found["answers"]] == [True, True]
    assert sum(found["answers"][0]["probabilities"].values()) == pytest.approx(1.0)
    assert "%" in run_command("predict", str(run), asked[0])

    (run / "calibration.json").unlink()
    assert open_trained(run).temperature is None
    again = json.loads(run_command("calibrate", str(run), "--json"))
    assert again["temperature"] == pytest.approx(kept["temperature"], rel=1e-5)
    assert open_trained(run).temperature == again["temperature"]
    latest = open_trained(run, "latest")
    assert (latest.temperature is None) == (latest.checkpoint.step != again["step"])


def test_from_python(folder: Path, tmp_path: Path) -> None:
    trainer = ClassificationTrainer(
        folder,
        preset="classification",
        settings={"training.steps": 20, "evaluation.every": 10, "model.hidden_size": 32, "data.sequence_length": 48},
        run=tmp_path / "run",
        progress=False,
    )
    trainer.fit()
    (chances,) = trainer.predict_probabilities(["# a comment"])
    assert set(chances) == {"code", "comment"}
    assert sum(chances.values()) == pytest.approx(1.0)


def test_how_sure_an_ensemble_is(folder: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        arguments = [f"data.source.path={folder}", "--run", str(tmp_path / str(seed)), *QUICK, "training.steps=20"]
        run_command("train", "classification", *arguments, f"seed={seed}", "evaluation.every=20")
    one, other = str(tmp_path / "1"), str(tmp_path / "2")
    found = json.loads(run_command("predict", one, "# a comment", "--beside", other, "--json"))["answers"][0]
    assert found["uncertainty"]["total"] == pytest.approx(
        found["uncertainty"]["within"] + found["uncertainty"]["between"], abs=1e-9
    )
    told = run_command("predict", one, "# a comment", "--passes", "4")
    assert "uncertainty" in told
    assert run_command("predict", one, "# a comment", "--passes", "4") == told
    refused = CliRunner().invoke(app, ["predict", one])
    assert refused.exit_code != 0


def test_what_an_answer_rests_on(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    run = tmp_path / "run"
    arguments = [f"data.source.path={folder}", "--run", str(run), *QUICK, "training.steps=20"]
    run_command("train", "classification", *arguments, "evaluation.every=20")
    found = json.loads(run_command("predict", str(run), "# a comment", "--explain", "--json"))["answers"][0]
    explained = found["attributions"]
    assert explained["of"] == found["class"]
    total = sum(one["score"] for one in explained["tokens"])
    assert total + explained["gap"] == pytest.approx(explained["value"] - explained["baseline"])
    assert run_command("predict", str(run), "# a comment", "--explain").count("\n") == 1 + len(explained["tokens"])


def test_a_folder_for_transformers_says_classes_and_temperature(folder: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    shape = {**TINY["bert"], "max_position_embeddings": 64}
    run, out = tmp_path / "run", tmp_path / "out"
    settings = [
        f"model={{name: hugging_face, config: {json.dumps(shape)}, path: null}}",
        "data.sequence_length=48",
        "data.tokenizer={name: bpe, vocabulary_size: 600}",
        "training.steps=10",
        "evaluation.every=10",
    ]
    run_command("train", "classification", f"data.source.path={folder}", "--run", str(run), *settings)
    run_command("export", str(run), "--to", "hugging-face", "--out", str(out))
    config = transformers.AutoConfig.from_pretrained(out)
    assert config.id2label == {0: "code", 1: "comment"}
    assert config.calibration_temperature == read_json(run / "calibration.json")["temperature"]


def test_a_run_that_died_before_it_was_calibrated_is_calibrated_later(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["train", "classification", f"data.source.path={folder}", "--run", str(run), *QUICK]
    run_command(*arguments)
    kept = read_json(run / "calibration.json")
    (run / "calibration.json").unlink()
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 0, told.output
    assert "calibration" in told.output
    again = read_json(run / "calibration.json")
    assert (again["step"], again["weights"]) == (kept["step"], kept["weights"])
    assert again["temperature"] == pytest.approx(kept["temperature"], rel=1e-5)
    assert "is already" in run_command(*arguments)


def test_too_few_texts_for_a_temperature_are_told_once(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = [
        f"data.source.path={folder}",
        "--run",
        str(run),
        *QUICK,
        "training.steps=10",
        "evaluation.max_tokens=80",
    ]
    with pytest.warns(UserWarning, match="each half needs 20"):
        run_command("train", "classification", *settings, "evaluation.every=10")
    assert "too few" in read_json(run / "calibration.json")["why"]
    assert open_trained(run).temperature == 1.0
    assert "no temperature" in (run / "report.html").read_text(encoding="utf-8")


def test_each_label_has_a_temperature_of_its_own(tmp_path: Path) -> None:
    words = ["red", "blue", "green", "large", "small"]
    rows = [
        {
            "text": " ".join(words[(number >> place) % 5] for place in range(4)),
            "label": [words[number % 5], "any"][: number % 3],
        }
        for number in range(2400)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run, out = tmp_path / "run", tmp_path / "out.safetensors"
    task = ["task={name: classification, label: label, multi_label: true}", "objective={name: binary_cross_entropy}"]
    source = [f"data.source={{name: jsonl, path: {tmp_path / 'rows.jsonl'}}}", "data.tokenizer={name: bytes}"]
    told = run_command("train", "classification", *task, *source, "--run", str(run), *QUICK)
    assert "by label" in told or "answers stay as they are" in told
    kept = read_json(run / "calibration.json")
    assert len(kept["fitted"]) == 6 == len(kept["temperature"])
    assert len(set(kept["fitted"])) > 1
    write_json(run / "calibration.json", kept | {"temperature": kept["fitted"]})
    run_command("export", str(run), "--to", "safetensors", "--out", str(out))
    temperatures = torch.tensor(kept["fitted"], dtype=torch.float64)
    for path in (run, out):
        predictor = open_predictor(path)
        assert predictor.temperature == tuple(kept["fitted"])
        plain = replace(predictor, temperature=None).probabilities(["red blue"])[0].logit()
        assert torch.allclose(predictor.probabilities(["red blue"])[0].logit() * temperatures, plain)
    answers = json.loads(run_command("predict", str(out), "red blue", "--json"))
    assert answers["temperature"] == kept["fitted"]
