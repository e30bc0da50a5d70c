"""What is asked of a running process: by signals, by files named SAVE, STOP or EVALUATE in the run, by the clock."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import final

from trimtab.events import Decision, Evaluate, Save, Stop
from trimtab.training.checkpoint.clock import SaveClock


@final
class Requests:
    """Polled at every step boundary."""

    def __init__(self, folder: Path, clock: SaveClock | None = None) -> None:
        self._files: dict[Path, Decision] = {
            folder / "SAVE": Save("the file SAVE was found in the run directory"),
            folder / "EVALUATE": Evaluate("the file EVALUATE was found in the run directory"),
            folder / "STOP": Stop("the file STOP was found in the run directory"),
        }
        self._clock = clock or SaveClock()
        self._listens = False
        self._is_to_save = False
        self.interrupted: str | None = None
        """The name of the first signal that asked this process to end."""

    def poll(self) -> list[Decision]:
        """What was asked since the last call; a file is removed when it is taken."""
        asked: list[Decision] = []
        if self._is_to_save:
            self._is_to_save = False
            asked.append(Save("SIGUSR1 received"))
        if (due := self._clock.due()) is not None:
            asked.append(due)
        for path, decision in self._files.items():
            if path.is_file():
                with suppress(OSError):
                    path.unlink(missing_ok=True)
                    asked.append(decision)
        return asked

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT as a request to save and end; a second one raises KeyboardInterrupt at once. SIGUSR1,
        where there is one, asks to save and go on.

        Outside the main thread, where Python allows no handlers, signals are left alone; within itself it does
        nothing.
        """
        if self._listens:
            yield
            return
        previous = {}
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                previous[number] = signal.signal(number, self._on_signal)
            if hasattr(signal, "SIGUSR1"):
                previous[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._on_save_signal)
        except ValueError:
            yield
            return
        self._listens = True
        try:
            yield
        finally:
            self._listens = False
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted is not None:
            raise KeyboardInterrupt
        self.interrupted = signal.Signals(number).name

    def _on_save_signal(self, number: int, frame: FrameType | None) -> None:
        self._is_to_save = True
