"""Commands that are named work as typed, however trimtab was called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.runs.program import as_typed, command, program
from trimtab.runs.reasons import with_other_settings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a virtual environment in it that is not on the path."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    script = tmp_path / ".venv/bin/trimtab"
    script.write_text(f"#!{sys.executable}\nfrom trimtab.runs.program import command\nprint(command('show', 'a b'))\n")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return tmp_path


def run(typed: str) -> str:
    return subprocess.run(["sh", "-c", typed], capture_output=True, text=True, check=True).stdout.strip()


def test_as_it_was_called(folder: Path) -> None:
    assert run(".venv/bin/trimtab") == ".venv/bin/trimtab show 'a b'"
    assert run(f"{folder}/.venv/bin/trimtab") == f"{folder}/.venv/bin/trimtab show 'a b'"
    assert run("PATH=$PWD/.venv/bin:$PATH trimtab") == "trimtab show 'a b'"
    assert run("PATH=$PWD/.venv/bin:$PATH .venv/bin/trimtab") == "trimtab show 'a b'"


def test_another_trimtab_on_the_path_is_not_it(folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    (other / "trimtab").write_text("#!/bin/sh\n")
    (other / "trimtab").chmod(0o755)
    assert run("PATH=$PWD/other:$PATH .venv/bin/trimtab") == ".venv/bin/trimtab show 'a b'"


def test_a_path_is_quoted(folder: Path) -> None:
    shutil.copytree(folder / ".venv", folder / "my venv")
    assert run("'my venv/bin/trimtab'") == "'my venv/bin/trimtab' show 'a b'"


def test_from_python_it_lies_beside_the_interpreter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(sys, "executable", str(folder / ".venv/bin/python"))
    assert program() == ".venv/bin/trimtab"
    monkeypatch.setenv("PATH", str(folder / ".venv/bin"))
    assert program() == "trimtab"
    os.remove(folder / ".venv/bin/trimtab")
    assert command("runs") == f"{folder}/.venv/bin/python -m trimtab.cli runs"


def test_commands_in_hints(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [".venv/bin/trimtab"])
    assert as_typed("`trimtab runs [DIR]` lists the runs") == "`.venv/bin/trimtab runs [DIR]` lists the runs"


def test_a_whole_path_is_told_from_here_where_it_lies_below(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["trimtab"])
    run = folder / "runs" / "mine"
    assert command("show", str(run)).endswith(" show runs/mine")
    assert command("show", "/a").endswith(" show /a")
    assert with_other_settings(str(run)).endswith("--run runs/mine --accept-drift")
    (folder / "deep").mkdir()
    monkeypatch.chdir(folder / "deep")
    assert command("show", str(run)).endswith(f" show {run}")
    assert command("predict", "/ or not, a text").endswith(" predict '/ or not, a text'")
