"""`trimtab top` in a terminal, in a pipe, and where there is nothing to follow."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest

from trimtab.events import RunEnded, RunStarted, StepsEnded
from trimtab.runs import Lock, RecordWriter, event_to_json


def make_run(path: Path, *, ends: bool = True) -> Path:
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("name: a\n")
    writer = RecordWriter(path / "record.jsonl")
    writer.append(event_to_json(RunStarted(0, 1, 0, None, 100)))
    writer.append(event_to_json(StepsEnded(1, 10, {"train/loss": np.linspace(5, 4, 10)}, {"tokens_per_second": 1e3})))
    if ends:
        writer.append(event_to_json(RunEnded(10, "stopped", "patience", None, None, None, 1.0)))
    writer.close()
    return path


def top(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "90", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "trimtab.cli", "top", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_in_a_pipe_it_is_one_frame_without_control_characters(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "a")
    for arguments in ((), ("--once",), ("runs/a",)):
        done = top(tmp_path, *arguments)
        assert done.returncode == 0, done.stderr
        assert all(character == "\n" or character.isprintable() for character in done.stdout)
        assert done.stdout.startswith("  a  stopped  step 10/100  10 %")
        assert "train loss" in done.stdout
        assert done.stdout.rstrip().endswith("trimtab show runs/a")


def test_json(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "a")
    make_run(tmp_path / "runs" / "b", ends=False)
    assert json.loads(top(tmp_path, "runs/a", "--json").stdout)["status"] == "stopped"
    os.utime(tmp_path / "runs/a/config.yaml", (1000, 1000))
    several = json.loads(top(tmp_path, "runs", "--json").stdout)
    assert [(frame["name"], frame["status"]) for frame in several] == [("b", "killed"), ("a", "stopped")]
    with Lock.acquire(tmp_path / "runs/a/lock.json"):  # what goes on comes first
        lines = top(tmp_path, "runs").stdout.splitlines()
        assert [line.split()[:2] for line in lines[1:]] == [["a", "running"], ["b", "killed"]]
        assert top(tmp_path).stdout.startswith("  a  running")


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "demo-1")
    done = top(tmp_path, "runs/demo-2")
    assert done.returncode == 2
    assert "runs/demo-2: there is no such directory" in done.stderr
    assert "did you mean runs/demo-1?" in done.stderr
    (tmp_path / "empty").mkdir()
    assert "is not a run" in top(tmp_path, "empty").stderr
    done = top(tmp_path / "empty")
    assert done.returncode == 2
    assert "there is no run in runs/" in done.stderr


def test_it_needs_no_torch(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    script = (
        "import sys; from trimtab.cli import app; sys.argv = ['trimtab', 'top', sys.argv[1], '--once']\n"
        "try: app()\nexcept SystemExit: pass\n"
        "assert not {'torch', 'tokenizers', 'safetensors', 'scipy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a")], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def begin(run: Path, rows: int = 30, **environment: str) -> tuple[subprocess.Popen[bytes], int]:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "trimtab.cli", "top", str(run), "--every-seconds", "0.2"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=os.environ | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | environment,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is a signal
    )
    os.close(follower)
    return process, leader


def read(leader: int, until: str, seconds: float = 20.0) -> str:
    received, deadline = b"", time.monotonic() + seconds
    while until.encode() not in received and time.monotonic() < deadline:
        if select.select([leader], [], [], 0.1)[0]:
            try:
                received += os.read(leader, 65_536)
            except OSError:
                break
    assert until.encode() in received, received.decode()
    return received.decode()


@pytest.mark.parametrize("by", ["q", "\x03", "SIGINT", "SIGTERM"])
def test_in_a_terminal_it_follows_until_it_is_told_to_end(by: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", ends=False)
    process, leader = begin(run)
    text = read(leader, "10/100")
    assert "\x1b[?1049h" in text
    writer = RecordWriter(run / "record.jsonl")
    writer.append(event_to_json(StepsEnded(11, 20, {"train/loss": np.linspace(4, 3, 10)}, {})))
    read(leader, "20/100")
    if by.startswith("SIG"):
        process.send_signal(getattr(signal, by))
    else:
        os.write(leader, by.encode())
    text = read(leader, "\x1b[?25h\x1b[?1049l")  # the terminal is as it was
    assert process.wait(10) == (143 if by == "SIGTERM" else 0)
    os.close(leader)


@pytest.mark.parametrize(("environment", "colours"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_can_be_switched_off(environment: dict[str, str], colours: bool, tmp_path: Path) -> None:
    process, leader = begin(make_run(tmp_path / "a"), **environment)
    assert ("\x1b[36m" in read(leader, "\x1b[J")) == colours
    os.write(leader, b"q")
    assert process.wait(10) == 0
    os.close(leader)


def test_a_low_terminal_is_not_scrolled(tmp_path: Path) -> None:
    process, leader = begin(make_run(tmp_path / "a"), rows=5)
    text = read(leader, "\x1b[J")
    assert text.partition("\x1b[H")[2].count("\n") <= 4
    os.write(leader, b"q")
    assert process.wait(10) == 0
    os.close(leader)


def test_doctor_and_show_take_the_newest_run_and_say_which(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "old")
    make_run(tmp_path / "runs" / "new")
    os.utime(tmp_path / "runs/old/config.yaml", (1000, 1000))
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    for name in ("doctor", "show"):
        command = [sys.executable, "-m", "trimtab.cli", name, "--json"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "runs/new, the newest run in runs/" in done.stderr
        told = json.loads(done.stdout)
        assert "new" in (told["run"], Path(str(told["run"])).name)
        done = subprocess.run(
            command, cwd=tmp_path / "runs", env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert f"`trimtab {name} RUN`" in done.stderr
