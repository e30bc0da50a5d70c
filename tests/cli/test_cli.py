"""The command line: help, errors, exit codes, JSON."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from trimtab.cli import app
from trimtab.config import flatten, load_config
from trimtab.doctor.lint import NEED_DATA
from trimtab.events import RunStarted, StepsEnded
from trimtab.report.differences import differences_of
from trimtab.runs import Recorder, RunDirectory
from trimtab.runs.described import describe_differences


def trimtab(*arguments: str | Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "trimtab.cli", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def _seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.fixture(scope="module")
def typers_own() -> float:
    """What typer takes by itself for the help of a command, in seconds of this processor."""
    seconds = []
    for _ in range(2):
        begun = _seconds_of_children()
        subprocess.run([sys.executable, "-c", "import typer, typer.main"], check=True)
        seconds.append(_seconds_of_children() - begun)
    return min(seconds)


@pytest.mark.parametrize(
    "command",
    [
        "",
        "demo",
        "train",
        "resume",
        "evaluate",
        "predict",
        "generate",
        "runs",
        "show",
        "verify",
        "check",
        "plan",
        "config",
    ],
)
def test_help_is_quick(command: str, typers_own: float) -> None:
    seconds = []
    for _ in range(2):
        begun = _seconds_of_children()
        output = trimtab(*([command] if command else []), "--help").stdout
        seconds.append(_seconds_of_children() - begun)
        assert "Usage" in output
    # Of the processor, which a busy machine does not change: alone, that is the time on the clock. What typer takes is
    # most of it, and a third more on an old processor; what is ours must stay small.
    assert min(seconds) < max(0.3, typers_own + 0.1)


def test_the_package_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "trimtab", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("trimtab ")


def test_check_tells_of_a_library_that_is_missing_before_torch_is_imported() -> None:
    code = (
        "import sys; sys.modules['bitsandbytes'] = None; sys.argv = ['trimtab', 'check', 'gpt-1m', "
        "'optimizer.name=adamw_8bit']\nfrom trimtab.cli import main\ntry: main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "optimizer.name=adamw_8bit: needs bitsandbytes, which is not installed" in done.stderr
    assert "pip install 'trimtab[lowbit]'" in done.stderr


def test_a_mistyped_setting_is_put_right_before_torch_is_imported() -> None:
    done = trimtab("train", "demo", "optimizer.learning_rat=1e-3", expect=2)
    assert "did you mean 'learning_rate'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistyped_command_and_run() -> None:
    assert "Did you mean 'train'" in trimtab("trian", expect=2).stderr
    assert "no such directory" in trimtab("show", "no/such/run", expect=2).stderr


def test_a_refused_configuration_names_its_code_and_can_be_allowed() -> None:
    overrides = ["training.steps=10", "schedule.warmup=50", "evaluation.every=5"]
    done = trimtab("check", "gpt-1m", *overrides, expect=2)
    assert "warmup-longer-than-run" in done.stderr
    trimtab("check", "gpt-1m", *overrides, "lint.allow=[warmup-longer-than-run]")


def test_a_metric_that_nobody_measures_is_refused() -> None:
    done = trimtab("check", "gpt-1m", "stopping.metric=validation/lss", expect=2)
    assert "validation/loss" in done.stderr


def test_check_says_what_it_left_out_and_reads_it_when_asked(tmp_path: Path) -> None:
    small = ["model.num_layers=1", "model.hidden_size=16", "model.num_heads=1", "data.tokenizer.name=bytes"]
    done = trimtab("check", "gpt-1m", *small).stdout
    assert "not looked at: the data, and so " in done
    assert all(code in done for code in NEED_DATA)
    assert "--build reads it" in done
    built = trimtab("check", "gpt-1m", *small, "training.steps=10", "--build").stdout
    assert "info tokens-per-parameter: training.steps: " in built
    assert "read and built: " in built
    assert "tokens a parameter" in built
    assert "not looked at" not in built
    refused = trimtab("check", "gpt-1m", "schedule.warmup=1.0", "--build", expect=2)
    assert "warmup-longer-than-run" in refused.stderr


def test_json() -> None:
    shown = json.loads(trimtab("config", "show", "demo", "--json").stdout)
    assert shown["name"] == "demo"
    presets = json.loads(trimtab("config", "presets", "--json").stdout)
    assert "gpt2" in presets
    schema = json.loads(trimtab("config", "schema").stdout)
    assert schema["properties"]["optimizer"]
    findings = json.loads(trimtab("check", "demo", "--json").stdout)
    assert isinstance(findings["findings"], list)
    assert "epochs-over-data" in findings["left_out"]


def test_origins() -> None:
    output = trimtab("config", "show", "demo", "optimizer.beta1=0.8", "--origin").stdout
    line = next(line for line in output.splitlines() if line.startswith("optimizer.beta1 "))
    assert line.split()[-1] == "override"
    line = next(line for line in output.splitlines() if line.startswith("training.steps "))
    assert "preset demo" in line


def test_runs_of_a_folder_without_runs(tmp_path: Path) -> None:
    assert "no runs" in trimtab("runs", tmp_path).stdout.lower()


@pytest.mark.parametrize(
    ("source", "following"),
    [
        ("config", "trimtab resume {}"),
        ("python", "in Python: Trainer(config, model=…, run='{}').fit()"),
        ("huggingface", "trimtab report {}"),
        ("lightning", "trimtab report {}"),
    ],
)
def test_what_follows_on_a_killed_run_is_not_refused(tmp_path: Path, source: str, following: str) -> None:
    run = RunDirectory.create(tmp_path, "killed")
    run.write_json(run.environment, {"source": source})
    recorder = Recorder.open(run)
    recorder.record(RunStarted(0, 1, 0, None, 100))
    recorder.record(StepsEnded(1, 10, {"train/loss": np.full(10, 2.0)}, {}))
    recorder.close()
    for command in ("doctor", "show"):
        assert trimtab(command, run.path).stdout.splitlines()[-1] == "next: " + following.format(run.path)
    if source == "python":
        assert following.format(run.path) in trimtab("resume", run.path, expect=2).stderr
    elif source != "config":
        trimtab("report", run.path)


def test_version() -> None:
    assert trimtab("--version").stdout.startswith("trimtab 0.")


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_lines_of_json_are_not_trained_on_as_plain_text(suffix: str) -> None:
    done = trimtab("check", "gpt-1m", "data.source.name=text", f"data.source.path=x.{suffix}", expect=2)
    assert f"name={suffix}" in done.stderr


def test_text_and_tokenizer_that_are_not_there_are_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").mkdir()
    source = ["data.source.name=text", "data.source.path=tex"]
    for command in ("check", "train"):
        assert "data.source.path: there is nothing at " in trimtab(command, "gpt-1m", *source, expect=3).stderr
    held_out = "data.validation_source={name: jsonl, path: held.jsonl}"
    assert "data.validation_source.path" in trimtab("check", "gpt-1m", held_out, expect=3).stderr
    tokenizer = "data.tokenizer={name: file, path: text}"
    assert "text/tokenizer.json" in trimtab("check", "gpt-1m", tokenizer, "--json", expect=3).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["text"]
    source[1] = "data.source.path=text"
    trimtab("check", "gpt-1m", *source)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--lr", "1e-3"], "hint: settings have no dashes: optimizer.learning_rate=1e-3"),
        (["--batch-size=8"], "training.micro_batch_size=8"),
        (["--epochs", "3"], "training.steps=VALUE. An epoch is so many steps: "),
        (["--acept-drift"], "(Possible options: --accept-drift)"),
        (["--foo"], "settings have no dashes: SECTION.KEY=VALUE"),
    ],
)
def test_an_option_that_is_a_setting(arguments: list[str], hint: str) -> None:
    stderr = trimtab("train", "gpt-1m", *arguments, expect=2).stderr
    assert f"No such option: {arguments[0].partition('=')[0]}" in stderr
    assert hint in stderr


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("precision=fp16", "did you mean training.precision.name=fp16?"),
        ("training.precision=bf16", "did you mean training.precision.name=bf16?"),
        ("optimizer.name=rprop", "optimizer.target=torch.optim:Rprop, and from Python as make_optim"),
        ("optimizer=rmsprop", "optimizer.name=custom optimizer.target=torch.optim:RMSprop"),
        ("optimizer.name=adamw_torch", "did you mean 'adamw'?"),
        ("epochs=3", "did you mean 'training.steps'? An epoch is so many steps: tokens to train on / ("),
    ],
)
def test_what_is_meant_can_be_typed(setting: str, hint: str) -> None:
    assert hint in trimtab("check", "gpt-1m", setting, expect=2).stderr
    if "=custom" in hint:
        trimtab("check", "gpt-1m", *[word.rstrip(",") for word in hint.split() if word.startswith("optimizer.")])


def test_a_patience_that_a_preset_brings_along_is_no_warning() -> None:
    stdout = trimtab("check", "gpt-1m", "training.steps=300").stdout
    assert "info patience-never: stopping.patience: a patience of 12 evaluations in a run that has 3" in stdout


def test_a_run_that_never_began_and_a_folder_of_text_say_what_to_do(tmp_path: Path) -> None:
    """Killed while it read its text, a run has no model; `train FOLDER` is what many try first."""
    (tmp_path / "config.yaml").write_text(trimtab("config", "show", "gpt-1m").stdout)
    assert "did not come to its first step" in trimtab("generate", tmp_path, expect=2).stderr
    assert "before its first step" in trimtab("show", tmp_path).stdout
    (tmp_path / "text").mkdir()
    hint = f"data.source.name=text data.source.path={tmp_path}/text"
    assert hint in trimtab("train", tmp_path / "text", expect=2).stderr


@pytest.mark.parametrize("command", [["demo"], ["train", "gpt-1m"], ["resume", "."]])
def test_a_request_to_save_does_not_end_a_command_that_begins(command: list[str]) -> None:
    """SIGUSR1 in the first of what a command does, long before torch is imported."""
    code = f"""
import os, signal, sys
import trimtab.config, trimtab.runs
from trimtab.cli import main
from trimtab.errors import UsageError

def first(*arguments, **named):
    os.kill(os.getpid(), signal.SIGUSR1)
    raise UsageError("went on")

trimtab.config.load_config = first
trimtab.runs.RunDirectory.open = first
sys.argv = ["trimtab", *{command!r}]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: went on\n")


def test_a_file_that_is_given_as_a_text_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "f.txt").write_text("one\n")
    done = trimtab("predict", tmp_path / "none", tmp_path / "f.txt", "long " * 1000, expect=2)
    assert done.stderr.count("is read as a text of its own; --file") == 1


def test_names_of_presets_leave_the_next_column_where_it_is() -> None:
    lines = [line for line in trimtab("config", "presets").stdout.splitlines() if not line.startswith("next:")]
    assert len({len(line) - len(line.split(maxsplit=1)[1]) for line in lines}) == 1


def test_the_little_that_was_set_is_told_apart(tmp_path: Path) -> None:
    """Also where a file holds a whole configuration, of which one line was changed."""
    whole = CliRunner().invoke(app, ["config", "show", "gpt-1m"]).stdout
    file = tmp_path / "my.yaml"
    file.write_text(whole)
    same = CliRunner().invoke(app, ["config", "show", str(file), "--changed"]).stdout
    assert same == "nothing is set beyond the preset or the defaults\n"
    file.write_text(whole.replace("learning_rate: 0.001", "learning_rate: 0.004"))
    told = CliRunner().invoke(app, ["config", "show", str(file), "--changed"]).stdout
    assert told.split()[:2] == ["optimizer.learning_rate", "0.004"]
    assert len(told.splitlines()) == 1
    found = json.loads(CliRunner().invoke(app, ["config", "show", "gpt-1m", "seed=7", "--changed", "--json"]).stdout)
    assert found == {"seed": {"value": 7, "origin": "override"}}
    base, differences = differences_of(flatten(load_config("gpt-1m", ["seed=7"])))
    line = describe_differences({key: {"was": was, "now": now} for key, was, now in differences}, base)
    assert line == "the preset gpt-1m, but seed 7 (was 0)"
    assert describe_differences({}, base) == "those of the preset gpt-1m"
