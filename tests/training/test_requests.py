"""Signals and request files."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from trimtab.events import Evaluate, Save, Stop
from trimtab.training import Requests
from trimtab.training.checkpoint.clock import SaveClock


def test_the_first_signal_asks_and_the_second_ends(tmp_path: Path) -> None:
    requests = Requests(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    with requests.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert requests.interrupted == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_user_signal_asks_to_save_once_and_ends_nothing(tmp_path: Path) -> None:
    requests = Requests(tmp_path)
    before = signal.getsignal(signal.SIGUSR1)
    with requests.listening():
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert requests.poll() == [Save("SIGUSR1 received")]
        assert requests.poll() == []
        assert requests.interrupted is None
    assert signal.getsignal(signal.SIGUSR1) is before


def test_a_save_is_due_by_the_clock_until_there_is_one(tmp_path: Path) -> None:
    now = [0.0]
    clock = SaveClock(1.5, now=lambda: now[0])
    requests = Requests(tmp_path, clock)
    now[0] = 89.0
    assert requests.poll() == []
    now[0] = 90.0
    assert requests.poll() == requests.poll() == [Save("1.5 minutes after the last save")]
    clock.restart()
    assert requests.poll() == []
    now[0] = 180.0
    assert requests.poll() == [Save("1.5 minutes after the last save")]
    now[0] = 1e9
    assert SaveClock(None, now=lambda: now[0]).due() is None


def test_outside_the_main_thread_signals_are_left_alone(tmp_path: Path) -> None:
    entered: list[bool] = []

    def listen() -> None:
        with Requests(tmp_path).listening():
            entered.append(True)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert entered == [True]


def test_files_are_taken_once_and_folders_are_no_requests(tmp_path: Path) -> None:
    requests = Requests(tmp_path)
    assert requests.poll() == []
    (tmp_path / "SAVE").touch()
    (tmp_path / "EVALUATE").touch()
    (tmp_path / "STOP").mkdir()
    assert [type(decision) for decision in requests.poll()] == [Save, Evaluate]
    assert requests.poll() == []
    (tmp_path / "STOP").rmdir()
    (tmp_path / "STOP").touch()
    assert [type(decision) for decision in requests.poll()] == [Stop]
