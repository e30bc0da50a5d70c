"""Secrets that a loop logs, or that its errors tell, are on no disk."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.integrations.logger import TrainingLogger
from trimtab.runs import read_record

SECRET = "sk-abcdefghijklmnopqrstuvwxyz012345"
KNOWN = "correct horse battery"


def written(path: Path) -> str:
    """All that a run's files hold, and how they are called."""
    files = [one for one in path.rglob("*") if one.is_file()]
    return "".join(one.read_bytes().decode("utf-8", "replace") + str(one) for one in files)


def test_texts_files_reasons_and_the_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_PASSWORD", KNOWN)
    with contextlib.suppress(RuntimeError), TrainingLogger(tmp_path / "run", report=False) as logger:
        logger.log_text("note", f"the key is {SECRET}, the words are {KNOWN}")
        logger.log_text(SECRET, f"{'x' * 3_990} {SECRET} {'y' * 5_000}")  # a file, and cut in the record
        logger.log({"nested": {"text": f"postgres://me:{KNOWN}@host/x"}, "loss": 1.0})
        logger.summary["note"] = SECRET
        raise RuntimeError(f"{'x' * 285} {SECRET}")
    found = written(tmp_path / "run")
    assert SECRET not in found
    assert SECRET[:12] not in found
    assert KNOWN not in found
    assert found.count("***") >= 6
    assert read_record(logger.run.record)[-1]["status"] == "failed"
    assert len(list((tmp_path / "run" / "artifacts" / "logged").iterdir())) == 1


def test_an_error_that_ends_the_process(tmp_path: Path) -> None:
    code = f"""
import trimtab
run = trimtab.init(id="r", dir={str(tmp_path)!r}, report=False)
trimtab.log({{"loss": 1.0}})
raise ValueError("sk-" + "abcdefghijklmnopqrstuvwxyz012345 is refused")
"""
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert read_record(tmp_path / "r" / "record.jsonl")[-1]["reason"] == "ValueError: *** is refused"
    assert SECRET not in written(tmp_path / "r")
