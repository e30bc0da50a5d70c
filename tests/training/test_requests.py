"""Signals and request files."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from trimtab.events import Evaluate, Save, Stop
from trimtab.training import Requests


def test_the_first_signal_asks_and_the_second_ends(tmp_path: Path) -> None:
    requests = Requests(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    with requests.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert requests.interrupted == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


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
