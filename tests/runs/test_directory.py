"""The run directory: names, parts, state."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from trimtab.errors import StorageError, UsageError
from trimtab.events import CheckpointSaved, RunEnded, RunStarted, StepsEnded
from trimtab.runs import Lock, Recorder, RunDirectory, list_runs


def ended(status: str) -> RunEnded:
    return RunEnded(10, status, "done", None, None, None, 1.0)  # type: ignore[arg-type]


def test_names_carry_the_time_and_are_unique(tmp_path: Path) -> None:
    runs = [RunDirectory.create(tmp_path / "runs", "demo") for _ in range(3)]
    assert all(re.fullmatch(r"\d{8}-\d{6}-demo(-\d)?", run.name) for run in runs)
    assert len({run.path for run in runs}) == 3
    assert all(run.path.is_dir() for run in runs)


def test_a_run_cannot_be_made_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(StorageError, match="runs"):
        RunDirectory.create(tmp_path / "runs", "demo")


def test_a_new_run_at_a_path_needs_an_empty_one(tmp_path: Path) -> None:
    assert RunDirectory.create_at(tmp_path / "a" / "b").path.is_dir()
    assert RunDirectory.create_at(tmp_path / "a" / "b").name == "b"
    (tmp_path / "a" / "b" / "thesis.txt").write_text("important")
    with pytest.raises(UsageError, match="empty or not there yet"):
        RunDirectory.create_at(tmp_path / "a" / "b")


def test_opening_what_is_no_run_names_the_nearest(tmp_path: Path) -> None:
    for name in ("20260101-000000-demo", "20260102-000000-other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("name: x\n")
    with pytest.raises(UsageError) as caught:
        RunDirectory.open(tmp_path / "20260101-000000-dem")
    assert "there is no such directory" in str(caught.value)
    assert str(tmp_path / "20260101-000000-demo") in str(caught.value.hint)
    with pytest.raises(UsageError, match=r"did you mean .*20260102-000000-other"):
        RunDirectory.open(tmp_path / "other")
    with pytest.raises(UsageError, match=r"is not a run.*\n.*the newest is .*20260102-000000-other"):
        RunDirectory.open(tmp_path)
    (tmp_path / "\x1b[31mred").mkdir()
    with pytest.raises(UsageError) as caught:
        RunDirectory.open(tmp_path / "\x1b[31mred")
    assert "\x1b" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_json_files_carry_a_schema_and_round_trip(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.write_json(run.plan, {"threads": 2, "loss": float("nan"), "path": Path("a/b")})
    assert run.read_json(run.plan) == {"schema": 1, "threads": 2, "loss": "nan", "path": "a/b"}
    run.write_text(run.config, "name: é\n")
    assert run.config.read_bytes() == "name: é\n".encode()


def test_status_follows_the_record_and_the_lock(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert run.status() == "new"
    recorder = Recorder.open(run)
    assert run.status() == "new"
    recorder.record(RunStarted(0, 1, 0, None, 10))
    with Lock.acquire(run.lock):
        assert run.status() == "running"
    assert run.status() == "killed"
    recorder.record(ended("interrupted"))
    assert run.status() == "interrupted"
    recorder.record(RunStarted(5, 2, 1, 5, 10))
    recorder.record(StepsEnded(6, 10, {}, {}))
    recorder.record(CheckpointSaved(10, "checkpoints/step-00000010", 1, 0.1, "scheduled"))
    assert run.status() == "killed"
    for status in ("finished", "stopped", "failed"):
        recorder.record(ended(status))
        recorder.record(CheckpointSaved(10, "checkpoints/step-00000010", 1, 0.1, "scheduled"))
        assert run.status() == status
    recorder.close()
    with open(run.record, "ab") as file:
        file.write(b'{"schema":1,"torn')
    assert run.status() == "failed"
    assert len(run.attempts()) == 2


def test_a_run_killed_before_its_first_file_can_be_opened(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "early")
    run.lock.write_text("{}")
    assert RunDirectory.open(run.path).status() == "new"


def test_many_runs_are_listed_quickly(tmp_path: Path) -> None:
    for index in range(500):
        (tmp_path / f"run-{index:05d}").mkdir()
        (tmp_path / f"run-{index:05d}" / "config.yaml").touch()
    (tmp_path / "no-run").mkdir()
    (tmp_path / "file").touch()
    begun = time.process_time()
    runs = list_runs(tmp_path)
    assert time.process_time() - begun < 0.5
    assert [run.name for run in runs] == [f"run-{index:05d}" for index in range(500)]
    assert list_runs(tmp_path / "missing") == []


_AS_NOBODY = """
    import os, sys
    import psutil  # before it becomes unreadable: a lock needs it
    from pathlib import Path
    from trimtab.errors import StorageError
    from trimtab.runs import Lock, RunDirectory
    if os.geteuid() == 0:
        os.setegid(65534)
        os.seteuid(65534)
    run = RunDirectory(Path(sys.argv[1]))
    for use in (run.check_writable, lambda: Lock.acquire(run.lock), lambda: run.write_json(run.plan, {})):
        try:
            use()
        except StorageError as error:
            assert str(run.path) in str(error) and "ermission denied" in str(error), error
        else:
            raise SystemExit("must raise")
"""


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    # Everybody must be able to reach it, so that permission is missing there and nowhere else.
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o111)
        if parent == Path("/tmp"):
            break
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_AS_NOBODY), str(tmp_path)], capture_output=True, text=True
    )
    tmp_path.chmod(0o755)
    assert result.returncode == 0, result.stderr


def test_a_writable_directory_is_left_as_it_was(tmp_path: Path) -> None:
    RunDirectory(tmp_path).check_writable()
    assert list(tmp_path.iterdir()) == []


def test_the_record_of_a_run_stands_for_it_and_a_record_alone_is_a_log(tmp_path: Path) -> None:
    run, alone = tmp_path / "run", tmp_path / "alone"
    for folder in (run, alone):
        folder.mkdir()
        (folder / "record.jsonl").write_text("")
    (run / "facts.json").write_text("{}")
    assert RunDirectory.path_of(run / "record.jsonl") == run
    assert RunDirectory.path_of(run) == run
    assert RunDirectory.path_of(alone / "record.jsonl") == alone / "record.jsonl"
    assert RunDirectory.path_of(run / "facts.json") == run / "facts.json"
