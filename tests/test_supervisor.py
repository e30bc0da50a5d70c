"""The supervisor, with small processes in place of a training; with a real one: tests/faults/test_restarts.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from trimtab import supervisor
from trimtab.supervisor import supervise, why_again


def child(tmp_path: Path, body: str) -> list[str]:
    """A process that counts its attempts in `count`, and has `attempt` and `why`, the reason that it was given."""
    code = """
    import json, os, signal, sys, time
    from pathlib import Path
    count = Path("count")
    attempt = int(count.read_text() or 0) + 1 if count.exists() else 1
    count.write_text(str(attempt))
    why = os.environ.get("TRIMTAB_RESTART")
    with open("reasons", "a") as file:
        print(why, file=file)
    """
    return [sys.executable, "-S", "-c", f"import os; os.chdir({str(tmp_path)!r})\n{textwrap.dedent(code)}{body}"]


def supervised(tmp_path: Path, body: str, max_restarts: int = 3, **named: object) -> tuple[int, list[str], int]:
    """Exit code, what was told, and how many attempts there were."""
    told: list[str] = []
    options = {"say": told.append, "first_pause_seconds": 0.01, **named}
    code = supervise(child(tmp_path, body), tmp_path, max_restarts=max_restarts, **options)  # type: ignore[arg-type]
    return code, told, int((tmp_path / "count").read_text())


@pytest.mark.parametrize("code", [0, 2, 3, 4, 5, 6, 75, 130])
def test_what_would_end_the_same_way_is_not_begun_again(tmp_path: Path, code: int) -> None:
    assert supervised(tmp_path, f"sys.exit({code})") == (code, [], 1)


def test_arguments_of_the_first_process_are_not_given_to_the_next(tmp_path: Path) -> None:
    body = "open('given', 'a').write(json.dumps(sys.argv[1:]))\nif attempt < 3: sys.exit(70)"
    code, _, attempts = supervised(tmp_path, body, first=["--accept-drift"])
    assert (code, attempts) == (0, 3)
    assert (tmp_path / "given").read_text() == '["--accept-drift"][][]'


@pytest.mark.parametrize(
    "end, reason",
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        ("sys.exit(70)", "a fault (70)"),
        ("sys.exit(1)", "ended with exit code 1"),
        ("sys.exit(7)", "ended with exit code 7"),
    ],
)
def test_a_crash_is_begun_again_and_the_next_process_is_told_why(tmp_path: Path, end: str, reason: str) -> None:
    code, told, attempts = supervised(tmp_path, f"if attempt < 3: {end}")
    assert (code, attempts) == (0, 3)
    assert [line.partition(":")[0] for line in told] == [f"{reason}; restart 1 of 3", f"{reason}; restart 2 of 3"]
    assert "goes on from the beginning" in told[0]
    assert (tmp_path / "reasons").read_text().splitlines() == ["None", *(line.partition(":")[0] for line in told)]


def test_restarts_are_bounded_and_the_last_code_is_given_as_shells_do(tmp_path: Path) -> None:
    code, told, attempts = supervised(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)", max_restarts=2)
    assert (code, attempts) == (137, 3)
    assert told[-1] == "killed by SIGKILL; given up after 2 restarts"


def test_pauses_grow_and_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(supervisor._Signals, "wait", lambda self, seconds: waited.append(seconds) and False)
    supervised(tmp_path, "sys.exit(70)", max_restarts=8, first_pause_seconds=1.0)
    assert waited == [1, 2, 4, 8, 16, 32, 60, 60]


def test_which_ends_are_worth_another_try() -> None:
    assert why_again(-signal.SIGTERM) is None
    assert why_again(-signal.SIGINT) is None
    assert why_again(-99) == "killed by signal 99"
    assert [code for code in range(256) if why_again(code)] == [1, 7, 70]


def as_process(tmp_path: Path, body: str, **named: object) -> subprocess.Popen[str]:
    """A supervisor in a process of its own, so that signals can be sent to it."""
    code = (
        "import sys, pathlib, json\nfrom trimtab.supervisor import supervise\n"
        "sys.exit(supervise(json.loads(sys.argv[1]), pathlib.Path(sys.argv[2]), **json.loads(sys.argv[3])))"
    )
    options = json.dumps({"max_restarts": 3, **named})
    command = [sys.executable, "-c", code, json.dumps(child(tmp_path, body)), str(tmp_path), options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_until(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


SAVES = """
def end(number, frame):
    Path("got").write_text(signal.Signals(number).name)
    sys.exit(75)
signal.signal(signal.SIGTERM, end); signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGUSR1, lambda number, frame: Path("saved").touch())
Path("pid").write_text(str(os.getpid()))
Path("ready").touch()
while True: time.sleep(0.05)
"""


@pytest.fixture(autouse=True)
def _hangups_are_heard() -> Iterator[None]:
    """Also where the tests themselves are run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    "number, got", [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT"), (signal.SIGHUP, "SIGTERM")]
)
def test_signals_are_passed_on_and_end_it(tmp_path: Path, number: int, got: str) -> None:
    process = as_process(tmp_path, SAVES)
    wait_until(tmp_path / "ready")
    process.send_signal(signal.SIGUSR1)
    wait_until(tmp_path / "saved")
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (75, "")
    assert (tmp_path / "got").read_text() == got
    assert (tmp_path / "count").read_text() == "1"


def test_a_child_that_does_not_listen_yet_is_not_killed_by_being_asked_to_save(tmp_path: Path) -> None:
    body = 'Path("pid").write_text(str(os.getpid()))\nPath("ready").touch()\n'
    body += 'while not Path("go").exists(): time.sleep(0.01)\n'
    process = as_process(tmp_path, body)
    wait_until(tmp_path / "ready")
    process.send_signal(signal.SIGUSR1)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGUSR1)  # a batch system may send it to all processes of a job
    time.sleep(0.3)
    (tmp_path / "go").touch()
    assert process.communicate(timeout=20) == (None, "")
    assert (process.returncode, (tmp_path / "count").read_text()) == (0, "1")


def test_a_signal_that_was_ignored_before_is_passed_on() -> None:
    """As the commands ignore it, until there is a child."""
    previous = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with supervisor._Signals() as signals:
            child = Child()
            signals.serve(child)  # type: ignore[arg-type]
            os.kill(os.getpid(), signal.SIGUSR1)
        assert child.got == [signal.SIGUSR1]
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, previous)


class Child:
    """Takes signals."""

    def __init__(self) -> None:
        self.got: list[int] = []

    def send_signal(self, number: int) -> None:
        self.got.append(number)


def signalled(line: int) -> tuple[list[int], list[int]]:
    """What a child got that begins to be served, and the SIGTERMs that came just before `line` of it."""
    child, come = Child(), []

    def trace(frame: FrameType, event: str, argument: object) -> object:
        if frame.f_code is supervisor._Signals.serve.__code__ and (event, frame.f_lineno) == ("line", line):
            come.append(signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        return trace

    with supervisor._Signals() as signals:
        tracing = sys.gettrace()
        sys.settrace(trace)  # type: ignore[arg-type]
        try:
            signals.serve(child)  # type: ignore[arg-type]
        finally:
            sys.settrace(tracing)
        assert signals.is_ended == bool(come)
    return child.got, come


def test_a_signal_while_a_child_begins_reaches_it_once() -> None:
    """Twice would mean: end at once, without saving."""
    code = supervisor._Signals.serve.__code__
    moments = 0
    for line in {line for *_, line in code.co_lines() if line is not None and line > code.co_firstlineno}:
        got, come = signalled(line)
        assert got == come
        moments += len(come)
    assert moments >= 2


def test_a_signal_before_there_is_a_child_reaches_it_once() -> None:
    child = Child()
    with supervisor._Signals() as signals:
        os.kill(os.getpid(), signal.SIGHUP)
        signals.serve(child)  # type: ignore[arg-type]
        signals.serve(child)  # type: ignore[arg-type]
    assert child.got == [signal.SIGTERM]


def test_a_signal_while_it_pauses_ends_it(tmp_path: Path) -> None:
    process = as_process(tmp_path, "sys.exit(70)", first_pause_seconds=60.0)
    assert process.stderr is not None
    assert "restart 1 of 3" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 75


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_PDEATHSIG")
def test_a_child_whose_supervisor_is_killed_is_asked_to_save(tmp_path: Path) -> None:
    process = as_process(tmp_path, SAVES)
    wait_until(tmp_path / "ready")
    process.kill()
    process.communicate()
    wait_until(tmp_path / "got")
    assert (tmp_path / "got").read_text() == "SIGTERM"


def test_a_child_that_gives_no_sign_of_life_is_killed_and_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose library keeps the interpreter's lock: the watchdog inside of it cannot run."""
    monkeypatch.setattr(supervisor, "_LEAST_SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(supervisor, "_TICK_SECONDS", 0.1)
    body = """
if attempt == 1:
    Path("lock.json").write_text(json.dumps({"pid": os.getpid(), "heartbeat": 1.0}))
    time.sleep(60)
for beat in range(10):
    Path("lock.new").write_text(json.dumps({"pid": os.getpid(), "heartbeat": float(beat)}))
    os.replace("lock.new", "lock.json")
    time.sleep(0.1)
"""
    code, told, attempts = supervised(tmp_path, body, watchdog_seconds=0.1)
    assert (code, attempts) == (0, 2)
    assert [line.partition(":")[0] for line in told] == ["gave no sign of life; restart 1 of 3"]


def test_a_child_that_is_stopped_is_not_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_LEAST_SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(supervisor, "_TICK_SECONDS", 0.1)
    body = 'Path("lock.json").write_text(json.dumps({"pid": os.getpid(), "heartbeat": 1.0}))\n'
    body += "os.kill(os.getpid(), signal.SIGSTOP)"

    def go_on() -> None:
        wait_until(tmp_path / "lock.json")
        time.sleep(1.0)
        os.kill(json.loads((tmp_path / "lock.json").read_text())["pid"], signal.SIGCONT)

    thread = threading.Thread(target=go_on)
    thread.start()
    assert supervised(tmp_path, body, watchdog_seconds=0.1) == (0, [], 1)
    thread.join()
