"""The surroundings of a run, without secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.config.secrets import hide_arguments
from trimtab.runs.environment import environment, git_state, usable_cores, usable_memory_bytes


def test_it_is_json_and_complete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TRIMTAB_TRAINING__STEPS", "5")
    monkeypatch.setenv("TRIMTAB_SINK__API_KEY", "very-secret")
    monkeypatch.setenv("HOME_SWEET_HOME", "private")
    facts = environment(seed=3, source="config", command=["trimtab", "train", "demo"], folder=tmp_path)
    text = json.dumps(facts, allow_nan=False)
    assert "very-secret" not in text
    assert "private" not in text
    assert facts["seed"] == 3
    assert facts["source"] == "config"
    assert facts["command"] == ["trimtab", "train", "demo"]
    assert facts["versions"]["python"].startswith("3.")
    assert facts["versions"]["numpy"]
    assert facts["variables"]["TRIMTAB_TRAINING__STEPS"] == "5"
    assert facts["variables"]["OMP_NUM_THREADS"] == "1"
    assert facts["git"] is None
    assert facts["hardware"]["cpu"]
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    assert usable_memory_bytes() > 1e8


def test_torch_is_not_imported() -> None:
    script = (
        "import sys; from trimtab.runs.environment import environment; import trimtab.runs.summary, "
        "trimtab.monitor.sinks; environment(seed=0, source='config'); "
        "assert not {'torch', 'scipy', 'tokenizers', 'safetensors'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_git_tells_the_commit_and_whether_files_changed(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )

    git("init", "-q")
    assert git_state(tmp_path) is None
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-qm", "first")
    state = git_state(tmp_path)
    assert state is not None
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    (tmp_path / "file").write_text("two")
    state = git_state(tmp_path)
    assert state is not None
    assert state["dirty"] is True


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["train", "demo", "training.steps=5"], ["train", "demo", "training.steps=5"]),
        (
            ["evaluation.max_tokens=7", "data.tokenizer.name=bpe"],
            ["evaluation.max_tokens=7", "data.tokenizer.name=bpe"],
        ),
        (["sink.api_key=abc"], ["sink.api_key=***"]),
        (["--token=abc", "--hf-token", "abc", "next"], ["--token=***", "--hf-token", "***", "next"]),
        (["--password", "--verbose"], ["--password", "--verbose"]),
        (["AWS_SECRET_ACCESS_KEY=abc"], ["AWS_SECRET_ACCESS_KEY=***"]),
        (["url=https://me:pw@host/x"], ["url=https://***@host/x"]),
        (["https://me:pw@host/x?y=1"], ["https://***@host/x?y=1"]),
        (["a=b=c"], ["a=b=c"]),
    ],
)
def test_secrets_are_hidden(given: list[str], shown: list[str]) -> None:
    assert hide_arguments(given) == shown
