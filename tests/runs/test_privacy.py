"""Samples and diffs: whole, redacted, hashed, or not at all."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from trimtab.config.privacy import Disclosure
from trimtab.events import AlertRaised, ArtifactLogged, RunEnded, RunStarted
from trimtab.runs.git_diff import MOST_BYTES, git_diff
from trimtab.runs.privacy import hashed, private, redacted
from trimtab.testing import sample_events

SECRET = "hf_abcdefghijklmnopqrstuvwx"
SAMPLE = ArtifactLogged(5, "sample", "sample-0", f"write to ann@example.org, {SECRET}")


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("on", "write to ann@example.org, ***"),
        ("redacted", "write to [e-mail], ***"),
        ("hashed", hashed(SAMPLE.text)),
    ],
)
def test_samples_are_told_as_asked(how: Disclosure, text: str) -> None:
    assert private(how)(SAMPLE) == replace(SAMPLE, text=text)


def test_samples_may_be_kept_back() -> None:
    assert private("off")(SAMPLE) is None
    assert private("off")(replace(SAMPLE, kind="text", name="highest-loss-1")) is None
    assert private("off")(replace(SAMPLE, kind="text", name="goodput")) is not None


def test_hashes_tell_whether_two_are_the_same() -> None:
    assert hashed("a") == hashed("a") != hashed("b")
    assert hashed("abc").startswith("sha256:ba7816bf8f01cfea (3 characters)")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("call +49 30 1234567 or (212) 555-0199 now", "call [telephone number] or [telephone number] now"),
        ("card 4111 1111 1111 1111.", "card [card number]."),
        ("DE89 3704 0044 0532 0130 00", "[IBAN]"),
        ("from 192.168.10.4", "from [IP address]"),
        ("123-45-6789", "[social security number]"),
        ("see https://example.org/ann?x=1", "see [address of a page]"),
        (
            "in 2024 loss 3.14, step 1200 of 40,000; version 2.13.0",
            "in 2024 loss 3.14, step 1200 of 40,000; version 2.13.0",
        ),
        ("def f(x):\n    return x[10:20] + 12345678", "def f(x):\n    return x[10:20] + 12345678"),
    ],
)
def test_what_looks_like_personal_data_is_taken_out(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "in 2024 loss 3.14, step 1200 of 40,000; version 2.13.0",
        "def f(x):\n    return x[10:20] + 12345678",
        "y" * 10**5,
    ],
)
def test_what_is_no_personal_data_stays(text: str) -> None:
    assert redacted(text) == text


def test_no_event_tells_a_secret() -> None:
    told = private("on")
    events = [
        RunStarted(0, 1, 0, None, 10, {"identity": {"api_key": "abc"}, "notes": [f"with {SECRET}"]}),
        AlertRaised(1, "write_failed", f"at https://me:pw@host with {SECRET}"),
        RunEnded(1, "failed", f"ValueError: {SECRET}", None, None, None, 1.0),
    ]
    shown = repr([told(event) for event in events])
    assert SECRET not in shown
    assert "'abc'" not in shown
    assert "me:pw" not in shown
    assert all(told(event) is event for event in sample_events())


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    def git(*arguments: str) -> None:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "code.py").write_text("x = 1\n")
    git("add", ".")
    git("commit", "-qm", "first")
    return tmp_path


def test_a_diff_is_kept_as_asked(repository: Path) -> None:
    assert git_diff(repository, "on") == ({}, "")
    (repository / "code.py").write_text('x = 2\nAPI_KEY = "hunter2"\n')
    said, text = git_diff(repository, "on")
    assert "+x = 2" in text
    assert '+API_KEY = "***"' in text
    assert "hunter2" not in text
    assert said == {"bytes": len(text.encode())}
    said, text = git_diff(repository, "redacted")
    assert "code.py | 3 ++-" in text
    assert "x = 2" not in text
    said, text = git_diff(repository, "hashed")
    assert len(said["sha256"]) == 64
    assert text == ""
    assert git_diff(repository, "off") == ({}, "")


def test_a_long_diff_is_cut(repository: Path) -> None:
    (repository / "code.py").write_text("y = 0  # ü\n" * 50_000)
    said, text = git_diff(repository, "on")
    assert said["bytes"] > MOST_BYTES >= said["kept_bytes"]
    assert text.endswith(f"… cut after {MOST_BYTES:,} bytes\n")


def test_outside_of_git_and_with_programs_in_its_configuration_nothing_is_run(repository: Path, tmp_path: Path) -> None:
    assert git_diff(Path("/"), "on") == ({}, "")
    mark = tmp_path / "ran"
    subprocess.run(["git", "config", "diff.external", f"touch {mark}"], cwd=repository, check=True)
    (repository / "code.py").write_text("x = 3\n")
    assert "+x = 3" in git_diff(repository, "on")[1]
    assert not mark.exists()
