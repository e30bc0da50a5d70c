"""One writer a run, with real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from trimtab.errors import StorageError
from trimtab.runs import Lock, live_holder, lock

_HOLD = """
    import sys, time
    from pathlib import Path
    from trimtab.runs import Lock
    held = Lock.acquire(Path(sys.argv[1]))
    print("held", flush=True)
    sys.stdin.read()
    held.close()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_HOLD), str(tmp_path / "lock.json")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def write_lock(path: Path, **changes: object) -> None:
    """A lock file of this process, changed."""
    content = {
        "schema": 1,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "process_started": psutil.Process().create_time(),
        "heartbeat": time.time(),
    }
    path.write_text(json.dumps(content | changes))


def test_a_lock_is_readable_and_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    with Lock.acquire(path):
        content = json.loads(path.read_text())
        assert (content["pid"], content["host"]) == (os.getpid(), socket.gethostname())
        assert content["schema"] == 1
        assert live_holder(path) is not None
        assert [entry.name for entry in tmp_path.iterdir()] == ["lock.json"]
    assert list(tmp_path.iterdir()) == []
    assert live_holder(path) is None


def test_a_second_process_is_refused_at_once(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    begun = time.monotonic()
    with pytest.raises(StorageError) as caught:
        Lock.acquire(tmp_path / "lock.json")
    assert time.monotonic() - begun < 2.0
    assert f"pid {holder.pid} on host {socket.gethostname()}" in str(caught.value)
    assert caught.value.exit_code == 5
    found = live_holder(tmp_path / "lock.json")
    assert found is not None
    assert found.pid == holder.pid


def test_the_same_process_is_refused_too(tmp_path: Path) -> None:
    with Lock.acquire(tmp_path / "lock.json"), pytest.raises(StorageError, match=f"pid {os.getpid()}"):
        Lock.acquire(tmp_path / "lock.json")


def test_a_killed_process_holds_nothing(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    # Not waited for: until its parent looks, it is a zombie with a valid pid.
    while psutil.Process(holder.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert (tmp_path / "lock.json").exists()
    with Lock.acquire(tmp_path / "lock.json") as taken:
        assert taken.holder.pid == os.getpid()


def test_a_stopped_process_still_holds_it(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(StorageError, match=f"pid {holder.pid}"):
            Lock.acquire(tmp_path / "lock.json")
    finally:
        holder.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_was_set_takes_no_lock_away(
    tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Start times of processes are reckoned from the clock: all of them move, and the heartbeat seems old."""
    now, started = time.time, psutil.Process.create_time
    monkeypatch.setattr(time, "time", lambda: now() + 3600.0 * hours)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: started(self) + 3600.0 * hours)
    with pytest.raises(StorageError, match=f"pid {holder.pid}"):
        Lock.acquire(tmp_path / "lock.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": 2**22 - 3},
        {"process_started": time.time() - 1e6},
        {"host": "elsewhere", "heartbeat": time.time() - 61},
    ],
    ids=["dead pid", "reused pid", "silent host"],
)
def test_a_stale_lock_is_taken_over(tmp_path: Path, changes: dict[str, object]) -> None:
    path = tmp_path / "lock.json"
    write_lock(path, **changes)
    assert live_holder(path) is None
    with Lock.acquire(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_the_process_that_it_was_taken_over_from_is_known(tmp_path: Path) -> None:
    """Its heartbeat tells how long it lived."""
    path = tmp_path / "lock.json"
    with Lock.acquire(path) as lock:
        assert lock.previous is None
    write_lock(path, process_started=1.0, heartbeat=12.5)
    with Lock.acquire(path) as lock:
        assert lock.previous is not None
        assert lock.previous.heartbeat == 12.5


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"pid": "x"}', b"\xff\xfe"])
def test_a_torn_lock_file_is_taken_over(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock.json").write_bytes(content)
    with Lock.acquire(tmp_path / "lock.json"):
        pass


def test_another_host_that_gives_signs_of_life_is_respected(tmp_path: Path) -> None:
    write_lock(tmp_path / "lock.json", host="elsewhere", heartbeat=time.time() - 30)
    with pytest.raises(StorageError, match="on host elsewhere") as caught:
        Lock.acquire(tmp_path / "lock.json")
    assert "60 s after its last sign of life" in str(caught.value.hint)


def test_beat_writes_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock.json"
    with Lock.acquire(path) as held:
        first = path.read_bytes()
        for _ in range(1000):
            held.beat()
        assert path.read_bytes() == first
        monkeypatch.setattr(lock, "BEAT_SECONDS", 0.0)
        held._next_beat = 0.0
        held.beat()
        second = path.read_bytes()
        assert len(second) == len(first)
        assert json.loads(second)["heartbeat"] > json.loads(first)["heartbeat"]


def test_beat_notices_that_the_run_was_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    held = Lock.acquire(path)
    path.unlink()
    held._next_beat = 0.0
    held.beat()
    write_lock(path, host="elsewhere", pid=77)
    held._next_beat = 0.0
    with pytest.raises(StorageError, match="pid 77 on host elsewhere"):
        held.beat()
    held.close()
    assert path.exists()


_RACE = """
    import sys, time
    from pathlib import Path
    from trimtab.errors import StorageError
    from trimtab.runs import Lock
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        held = Lock.acquire(Path(sys.argv[1]))
    except StorageError:
        print("refused", flush=True)
    else:
        print("won", flush=True)
        sys.stdin.readline()
"""


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_racing_processes_exactly_one_wins(tmp_path: Path, stale: bool) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(_RACE), str(tmp_path / "lock.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        if stale:
            write_lock(tmp_path / "lock.json", pid=2**22 - 3)
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("\n")
            racer.stdin.flush()
        answers = [racer.stdout.readline().strip() for racer in racers if racer.stdout is not None]
        assert sorted(answers) == ["refused", "refused", "refused", "won"]
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()


def test_without_the_kernels_lock_the_file_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    path = tmp_path / "lock.json"
    write_lock(path, pid=2**22 - 3)
    held = Lock.acquire(path)
    with pytest.raises(StorageError, match=f"pid {os.getpid()}"):
        Lock.acquire(path)
    held.close()
    assert not path.exists()
