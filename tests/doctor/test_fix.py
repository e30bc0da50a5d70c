"""A changed configuration loads, says why, and does not repeat what was tried in vain."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cases import case_of, falling
from ruamel.yaml import YAML
from typer.testing import CliRunner

from trimtab.cli import app
from trimtab.config import Config, flatten, load_config, load_written
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.finding import Diagnosis, Finding, Remedy
from trimtab.doctor.fix import fix, fix_elsewhere
from trimtab.doctor.load import open_case
from trimtab.doctor.tried import Tried, tried_beside, tried_in_run
from trimtab.errors import ConfigError
from trimtab.events import Adjust, DecisionTaken, Rollback
from trimtab.report.fixed import SIGN, fixed_file, render_fix
from trimtab.runs import RunDirectory

ARCHIVE = Path(__file__).parent / "runs" / "runs.tar.xz"
RATE = "optimizer.learning_rate"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def load(overrides: Sequence[str]) -> Config:
    return load_config("gpt-1m", list(overrides), environment={})


def found(*remedies: Remedy, code: str = "learning-rate-too-high", severity: Any = "warning") -> Finding:
    return Finding(code, severity, 0.9, 10, "the updates are too large", remedies=remedies)


def test_why_nothing_is_changed_is_said() -> None:
    remark = found(rate(1e-4), severity="info")
    told = {
        "remarks alone": said(remark),
        "no fault": said(),
        "no setting that the doctor knows": said(found(Remedy("look at ten samples"))),
        "left to try": said(found(rate(load(()).optimizer.learning_rate))),
    }
    for why, diagnosis in told.items():
        assert why in render_fix(fix(diagnosis, load, lambda finding: []), None)
    assert "remarks alone" in fix_elsewhere(said(remark)).why_nothing


def said(*findings: Finding) -> Diagnosis:
    return Diagnosis("runs/a", "attention", findings, (), "It went. It was too fast. Next: slower.")


def rate(value: float) -> Remedy:
    return Remedy(f"lower the learning rate to {value:g}", "trimtab", {RATE: value})


def lower(factor: float) -> float:
    return float(f"{load(()).optimizer.learning_rate * factor:.1e}")


WARMUP = Remedy("warm up over a fifth of the run", "trimtab", {"schedule.warmup": 0.2})
WORDS = Remedy("look at the data")


def test_each_fault_gets_the_first_step_of_its_ladder_and_words_are_advice() -> None:
    other = found(Remedy("more dropout", "trimtab", {"model.dropout.residual": 0.1}), code="overfitting")
    remark = found(rate(1e-9), code="plateau", severity="info")
    done = fix(said(found(WORDS, rate(lower(0.3)), WARMUP), other, remark), load, lambda _: [])
    assert [(one.key, one.now, one.code) for one in done.changes] == [
        (RATE, lower(0.3), "learning-rate-too-high"),
        ("model.dropout.residual", 0.1, "overfitting"),
    ]
    assert [(one.remedy, one.passed_over) for one in done.advice] == [("look at the data", "")]
    assert done.config is not None
    assert done.config == load(done.overrides)
    assert done.changes[0].was == load(()).optimizer.learning_rate


def test_what_was_tried_in_vain_is_passed_over_and_then_done_more() -> None:
    vain = Tried({RATE: lower(0.3)}, frozenset({"learning-rate-too-high"}), "runs/b")
    done = fix(said(found(rate(lower(0.3)), WARMUP)), load, lambda _: [vain])
    assert [one.key for one in done.changes] == ["schedule.warmup"]
    assert done.advice[0].passed_over == "tried in vain: runs/b"

    both = [vain, Tried({"schedule.warmup": 0.2}, vain.still, "runs/c")]
    done = fix(said(found(rate(lower(0.3)), WARMUP)), load, lambda _: both)
    assert [(one.key, one.now) for one in done.changes] == [(RATE, pytest.approx(lower(0.09), rel=0.05))]

    both.append(Tried({RATE: done.changes[0].now}, vain.still, "runs/d"))
    done = fix(said(found(rate(lower(0.3)), WARMUP)), load, lambda _: both)
    assert [one.now for one in done.changes] == [pytest.approx(lower(0.027), rel=0.05)]


def test_a_run_that_differs_otherwise_or_was_cured_says_nothing_of_a_remedy() -> None:
    elsewhere = Tried({RATE: lower(0.3), "model.num_layers": 1}, frozenset({"learning-rate-too-high"}), "b")
    cured = Tried({RATE: lower(0.3)}, frozenset({"overfitting"}), "c")
    for one in (elsewhere, cured):
        done = fix(said(found(rate(lower(0.3)))), load, lambda _, one=one: [one])  # type: ignore[misc]
        assert [change.now for change in done.changes] == [lower(0.3)]


def test_of_two_findings_the_graver_decides_a_setting() -> None:
    done = fix(said(found(rate(lower(0.3))), found(rate(lower(3.0)), code="plateau")), load, lambda _: [])
    assert [one.now for one in done.changes] == [lower(0.3)]
    assert [one.passed_over for one in done.advice] == [f"{RATE} is set for learning-rate-too-high"]


def test_of_two_rates_on_the_same_side_the_farther_is_taken() -> None:
    for first, second in ((0.3, 0.01), (3.0, 9.0)):
        findings = found(rate(lower(first)), code="divergence"), found(rate(lower(second)))
        done = fix(said(*findings), load, lambda _: [])
        assert [(one.was, one.now, one.code) for one in done.changes] == [
            (lower(1.0), lower(second), "learning-rate-too-high")
        ]
        assert done.codes == ("divergence", "learning-rate-too-high")
        assert done.config is not None
        assert done.config.optimizer.learning_rate == lower(second)
        assert load(done.overrides) == done.config
    done = fix(said(found(rate(lower(0.01)), code="divergence"), found(rate(lower(0.3)))), load, lambda _: [])
    assert [one.now for one in done.changes] == [lower(0.01)]


def test_what_would_not_load_or_be_refused_or_is_set_already_is_passed_over() -> None:
    impossible = Remedy("a dropout of 7", "trimtab", {"model.dropout.residual": 7.0})
    refused = Remedy("a penalty", "trimtab", {"penalties.l2.strength": 0.1})
    there = Remedy("as it is", "trimtab", {RATE: load(()).optimizer.learning_rate})
    theirs = Remedy("warm up", "huggingface", {"warmup_ratio": 0.1})
    done = fix(said(found(impossible, refused, there, theirs, WARMUP)), load, lambda _: [])
    assert [one.key for one in done.changes] == ["schedule.warmup"]
    why = [one.passed_over for one in done.advice]
    assert why[0].startswith("refused: ")
    assert "model.dropout.residual" in why[0]
    assert why[1:] == ["refused: l2-with-adam", "it is set so already", "it is for huggingface"]


def test_nothing_to_change_is_no_configuration() -> None:
    done = fix(said(found(WORDS)), load, lambda _: [])
    assert done.config is None
    assert not done.changes
    assert render_fix(done, None).startswith("nothing is changed")


def test_the_file_loads_and_says_why_above_each_change() -> None:
    clip = Remedy("clip the gradient\nto norm 1 # now", "trimtab", {"gradients.clip.name": "norm"})
    bare = lambda overrides: load(["gradients.clip={name: none}", *overrides])  # noqa: E731
    done = fix(said(found(rate(lower(0.3)), WORDS), found(clip, code="loss-spike")), bare, lambda _: [])
    text = fixed_file(done, said(), "trimtab")
    assert text.startswith(SIGN)
    assert load_config(YAML(typ="safe").load(text), environment={}) == done.config
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("  learning_rate:"))
    assert lines[at - 2].startswith("  # learning-rate-too-high: lower the learning rate")
    assert f"(was {load(()).optimizer.learning_rate!r})" in lines[at - 2]
    assert lines[at - 1] == "  # because the updates are too large"
    assert any("look at the data" in line for line in lines if line.startswith("#   - "))


def test_what_the_runs_controllers_did_before_the_trouble_counts_as_tried() -> None:
    case = case_of(falling(100), config={RATE: 1e-2})
    decisions: list[Any] = [
        DecisionTaken(20, 20, "plateau", Adjust("", "learning_rate", 0.3)),
        DecisionTaken(30, 30, "recovery", Rollback("", 25, learning_rate=0.1)),
        DecisionTaken(35, 35, "plateau", Adjust("", "learning_rate", 0.2), "overruled"),
        DecisionTaken(36, 36, "gap", Adjust("", "dropout", 0.2)),
        DecisionTaken(60, 60, "plateau", Adjust("", "learning_rate", 0.01)),
    ]
    for decision in decisions:
        case.history.observe(decision)
    tried = tried_in_run(case, "loss-spike", 40)
    assert [one.settings[RATE] for one in tried] == [pytest.approx(3e-3), pytest.approx(1e-3)]
    assert all(one.still == {"loss-spike"} for one in tried)


def a_run(path: Path, settings: dict[str, Any], codes: list[str], data: str = "d") -> RunDirectory:
    run = RunDirectory.create_at(path)
    identity = {f"config.{key}": value for key, value in settings.items()} | {"data.fingerprint": data}
    run.write_json(run.facts, {"identity": identity})
    run.write_text(run.config, "")
    findings = [{"code": code, "severity": "warning", "consequences": ["plateau"]} for code in codes]
    run.write_json(run.diagnosis, {"findings": [*findings, {"code": "noisy-loss", "severity": "info"}]})
    return run


def test_runs_beside_one_and_its_proofs_tell_what_was_tried(tmp_path: Path) -> None:
    base = {RATE: 0.01, "seed": 0, "name": "a", "logging.every": 10}
    run = a_run(tmp_path / "a", base, ["divergence"])
    a_run(tmp_path / "b", base | {RATE: 0.003, "seed": 4, "logging.every": 5}, ["divergence"])
    a_run(tmp_path / "c", base | {RATE: 0.001}, [], data="other")
    a_run(tmp_path / "d", base, ["divergence"])
    a_run(tmp_path / "a" / "proofs" / "12ab" / "seed-0", base | {"schedule.warmup": 0.1}, [])
    tried = {one.where: one for one in tried_beside(run)}
    assert set(tried) == {"b", "proofs/12ab/seed-0"}
    assert tried["b"].settings == {RATE: 0.003}
    assert tried["b"].still == {"divergence", "plateau"}
    assert tried["proofs/12ab/seed-0"].still == set()


def faulty() -> list[Any]:
    with tarfile.open(ARCHIVE) as archive:
        content = archive.extractfile("runs.json")
        assert content is not None
        table = json.load(content)["runs"]
    first = {run["truth"]: run for run in table if run["truth"] != "healthy"}  # one of each kind
    quick = ("overfitting", "learning-rate-too-high", "nan-loss")
    return [pytest.param(run, id=code, marks=() if code in quick else pytest.mark.slow) for code, run in first.items()]


@pytest.mark.parametrize("run", faulty())
def test_recorded_runs_get_a_configuration_that_loads(folder: Path, run: dict[str, Any]) -> None:
    directory = RunDirectory.open(folder / str(run["set"]) / run["name"])
    diagnosis = diagnose(open_case(directory), run["name"])
    base = lambda overrides: load_written(directory.config, overrides)  # noqa: E731
    done = fix(diagnosis, base, lambda _: [])
    proposed = any(remedy.config for finding in diagnosis.findings for remedy in finding.remedies)
    assert (done.config is not None) == proposed, diagnosis.summary
    if done.config is not None:
        text = fixed_file(done, diagnosis, "trimtab")
        assert load_config(YAML(typ="safe").load(text), environment={}) == done.config
        values = flatten(done.config)
        assert all(values[one.key] == one.now != one.was for one in done.changes)
    else:
        assert done.advice


def test_the_log_of_another_trainer_gets_its_own_settings_or_words_alone(tmp_path: Path) -> None:
    theirs = Remedy("lower it", "huggingface", {"learning_rate": 3e-5})
    again = Remedy("lower it", "huggingface", {"learning_rate": 1e-5})
    done = fix_elsewhere(said(found(WORDS, theirs, Remedy("x", "huggingface", {"weight_decay": 0.1})), found(again)))
    assert [(one.key, one.now) for one in done.changes] == [("learning_rate", 3e-5)]
    text = fixed_file(done, said(), "huggingface")
    assert YAML(typ="safe").load(text) == {"learning_rate": 3e-5}
    assert "# learning-rate-too-high: lower it" in text
    assert YAML(typ="safe").load(fixed_file(fix_elsewhere(said(found(WORDS))), said(), "text")) is None


def leaving(path: Path) -> Path:
    lines = [f"{step},{2.0 if step < 60 else 2.0 + 0.2 * (step - 60):.3f}" for step in range(1, 121)]
    path.write_text("step,train_loss\n" + "\n".join(lines) + "\n")
    return path


def test_the_command_writes_the_file_and_nothing_that_is_not_its_own(tmp_path: Path, folder: Path) -> None:
    table = {param.values[0]["truth"]: param.values[0] for param in faulty()}  # type: ignore[attr-defined]
    run = table["learning-rate-too-high"]
    path, file = folder / str(run["set"]) / run["name"], tmp_path / "fixed.yaml"
    runner = CliRunner()
    for _ in range(2):  # its own file may be written over
        result = runner.invoke(app, ["doctor", str(path), "--fix", str(file)])
        assert result.exit_code == 0, result.output
    assert f"train {file}" in result.output
    was, now = load_written(path / "config.yaml"), load_config(file, environment={})
    assert now.optimizer.learning_rate < was.optimizer.learning_rate
    told = json.loads(runner.invoke(app, ["doctor", str(path), "--fix", str(file), "--json"]).stdout)
    assert told["fix"]["changes"][0]["now"] == now.optimizer.learning_rate

    file.write_text("seed: 1\n")
    result = runner.invoke(app, ["doctor", str(path), "--fix", str(file)])
    assert isinstance(result.exception, Exception)
    assert "was not written by --fix" in str(result.exception)
    assert file.read_text() == "seed: 1\n"
    for arguments, why in (
        ([str(path), str(path), "--fix", str(tmp_path / "b.yaml")], "are for one run"),
        ([str(path), "--fix", str(tmp_path / "b.json")], "ends in .yaml"),
        ([str(path), "--seeds", "3"], "goes with --prove"),
        ([str(path), "--full"], "goes with --prove"),
    ):
        assert why in str(runner.invoke(app, ["doctor", *arguments]).exception)


def test_the_command_names_no_command_where_the_run_was_begun_from_objects(tmp_path: Path, folder: Path) -> None:
    table = {param.values[0]["truth"]: param.values[0] for param in faulty()}  # type: ignore[attr-defined]
    kept = table["learning-rate-too-high"]
    path, file = tmp_path / "run", tmp_path / "fixed.yaml"
    shutil.copytree(folder / str(kept["set"]) / kept["name"], path)
    run = RunDirectory.open(path)
    run.write_json(run.environment, {"source": "python"})
    result = CliRunner().invoke(app, ["doctor", str(path), "--fix", str(file)])
    how = f"in Python, with the same objects: Trainer(load_config({str(file)!r}), model=…).fit()"
    assert result.output.splitlines()[-1] == f"next: {how}"
    text = file.read_text()
    assert text.startswith(SIGN)
    assert f"\n# {how}\n" in text, "in one line, so that it can be copied"
    assert "`trimtab train` of this file would" in text
    assert load_config(file, environment={}).optimizer.learning_rate < load_written(run.config).optimizer.learning_rate


def test_the_command_gives_advice_on_a_foreign_log(tmp_path: Path) -> None:
    log, file = leaving(tmp_path / "log.csv"), tmp_path / "advice.yaml"
    result = CliRunner().invoke(app, ["doctor", str(log), "--fix", str(file)])
    assert result.exit_code == 0, result.output
    assert "divergence" in file.read_text()
    assert YAML(typ="safe").load(file.read_text()) is None
    result = CliRunner().invoke(app, ["doctor", str(log), "--prove"])
    assert "was not trained by trimtab" in str(result.exception)


@pytest.mark.parametrize(("severity", "code"), [("info", 6), ("warning", 6), ("error", 6)])
def test_fail_on_ends_with_6_at_or_above_a_severity(tmp_path: Path, severity: str, code: int) -> None:
    log = leaving(tmp_path / "log.csv")
    result = CliRunner().invoke(app, ["doctor", str(log), "--fail-on", severity])
    assert result.exit_code == code
    sound = tmp_path / "sound.csv"
    sound.write_text("step,train_loss\n" + "\n".join(f"{n},{v:.4f}" for n, v in enumerate(falling(120), 1)) + "\n")
    told = json.loads(CliRunner().invoke(app, ["doctor", str(sound), "--json"]).stdout)
    assert not [one for one in told["findings"] if one["severity"] != "info"], told["findings"]
    assert CliRunner().invoke(app, ["doctor", str(sound), "--fail-on", "warning"]).exit_code == 0


def test_fail_on_refuses_a_severity_that_there_is_none_of(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["doctor", str(leaving(tmp_path / "log.csv")), "--fail-on", "fatal"])
    assert "--fail-on: must be info, warning, error. Received: 'fatal'" in str(result.exception)


def test_a_configuration_that_does_not_load_as_it_is_says_so() -> None:
    def broken(overrides: Sequence[str]) -> Config:
        raise ConfigError("data.source.path: was hidden as a secret")

    with pytest.raises(ConfigError, match="hidden as a secret"):
        fix(said(found(rate(1e-4))), broken, lambda _: [])
