"""Begins a training process again when it crashed, from its newest whole checkpoint: `--max-restarts`.

The process that supervises imports no torch and holds no lock: what crashes is its child.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, final

from trimtab.errors import EXIT_INTERRUPTED, ResourceError
from trimtab.runs import RunDirectory, format
from trimtab.runs.checkpoints import newest_step

REASON_VARIABLE: Final = "TRIMTAB_RESTART"
"""Tells a process why it was begun again."""
LONGEST_PAUSE_SECONDS: Final = 60.0
_TICK_SECONDS: Final = 1.0
_LEAST_SILENCE_SECONDS: Final = 60.0
_CRASHES: Final = {1: "ended with exit code 1", ResourceError.exit_code: "ended with exit code 7", 70: "a fault (70)"}
"""Exit codes after which another try may end otherwise; all others would repeat, or were asked for."""


def why_again(code: int) -> str | None:
    """Why a process that ended with `code` is worth another try; None where it is not."""
    if code >= 0:
        return _CRASHES.get(code)
    if -code in (signal.SIGTERM, signal.SIGINT):
        return None
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"


def supervise(
    command: Sequence[str],
    run: Path,
    *,
    max_restarts: int,
    watchdog_seconds: float | None = None,
    say: Callable[[str], None] | None = None,
    first_pause_seconds: float = 1.0,
    first: Sequence[str] = (),
) -> int:
    """Run `command`, which trains in `run`, and run it again while it crashes; gives its last exit code.

    Each restart waits twice as long as the one before. SIGTERM, SIGINT, SIGHUP and SIGUSR1 are passed on; after the
    first three nothing is begun again. A process whose lock gives no sign of life for twice `watchdog_seconds`, though
    it is not stopped, is killed. When the supervisor dies, its child is asked to save and end (on Linux).

    `first` are arguments of the first process alone: what was accepted once is not accepted of what changes later.
    """
    tell = say or (lambda text: print(text, file=sys.stderr, flush=True))
    restarts, reason = 0, ""
    with _Signals() as signals:
        while True:
            silence = None if watchdog_seconds is None else max(2 * watchdog_seconds, _LEAST_SILENCE_SECONDS)
            given = [*command, *(first if restarts == 0 else ())]
            code, silent = _run(given, signals, run, reason, silence)
            again = "gave no sign of life" if silent else why_again(code)
            if again is None or signals.is_ended:
                return _as_shells_do(code)
            if restarts == max_restarts:
                tell(f"{again}; given up after {restarts} restart{'' if restarts == 1 else 's'}")
                return ResourceError.exit_code if silent else _as_shells_do(code)
            restarts += 1
            pause = min(first_pause_seconds * 2 ** (restarts - 1), LONGEST_PAUSE_SECONDS)
            reason = f"{again}; restart {restarts} of {max_restarts}"
            step = newest_step(run)
            where = "the beginning" if step is None else f"step {format.count(step)}"
            tell(f"{reason}: goes on from {where} in {format.duration(pause)}")
            if signals.wait(pause):
                return EXIT_INTERRUPTED


def _as_shells_do(code: int) -> int:
    return 128 - code if code < 0 else code


def _run(
    command: Sequence[str], signals: _Signals, run: Path, reason: str, silence_seconds: float | None
) -> tuple[int, bool]:
    """Exit code of one process, and whether it was killed because it gave no sign of life."""
    environment = {name: value for name, value in os.environ.items() if name != REASON_VARIABLE}
    environment |= {REASON_VARIABLE: reason} if reason else {}
    supervisor = os.getpid()
    library = ctypes.CDLL(None) if sys.platform.startswith("linux") else None

    def begin() -> None:
        # Until it listens it has nothing to save, and the signal would end it, whoever sends it.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        if library is not None:
            library.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
            if os.getppid() != supervisor:
                os._exit(EXIT_INTERRUPTED)

    # In a group of its own: a Ctrl-C of the terminal would reach it twice, and the second one ends it at once.
    child = subprocess.Popen(command, env=environment, process_group=0, preexec_fn=begin)
    signals.serve(child)
    life = _SignsOfLife(child, RunDirectory(run).lock)
    silent = False
    try:
        while True:
            try:
                return child.wait(_TICK_SECONDS), silent
            except subprocess.TimeoutExpired:
                if silence_seconds is not None and not silent and life.silent_seconds() > silence_seconds:
                    silent = True
                    child.kill()
    finally:
        signals.serve(None)
        if child.poll() is None:
            child.terminate()
            child.wait()


@final
class _SignsOfLife:
    """How long a process has not renewed its lock, counted while neither it nor we were stopped."""

    def __init__(self, child: subprocess.Popen[bytes], lock: Path) -> None:
        self._child, self._lock = child, lock
        self._newest: tuple[int, float] | None = None
        self._silent, self._before = 0.0, time.monotonic()

    def silent_seconds(self) -> float:
        now = time.monotonic()
        elapsed, self._before = min(now - self._before, 2 * _TICK_SECONDS), now
        sign = self._sign()
        if sign is None or sign != self._newest or self._is_stopped():
            self._newest, self._silent = sign, 0.0
        else:
            self._silent += elapsed
        return self._silent

    def _sign(self) -> tuple[int, float] | None:
        """None unless the child holds the lock."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(self._lock.read_bytes())
            if content["pid"] == self._child.pid:
                return content["pid"], float(content["heartbeat"])
        return None

    def _is_stopped(self) -> bool:
        import psutil

        with contextlib.suppress(psutil.Error):
            return bool(psutil.Process(self._child.pid).status() == psutil.STATUS_STOPPED)
        return False


@final
class _Signals:
    """Passes signals on to the child."""

    def __init__(self) -> None:
        self.is_ended = False
        """Whether somebody asked for the end."""
        self._child: subprocess.Popen[bytes] | None = None
        self._owed: int | None = None
        """The signal that asked for the end while there was no child; so that each reaches it once."""
        self._previous: dict[int, object] = {}

    def __enter__(self) -> _Signals:
        for name, handler in (
            ("SIGTERM", self._end),
            ("SIGINT", self._end),
            ("SIGHUP", self._end),
            ("SIGUSR1", self._pass_on),
            ("SIGTSTP", self._stop),
        ):
            number = getattr(signal, name, None)
            # nohup ignores SIGHUP. A job in the background begins with SIGINT ignored, and may be asked all the same;
            # SIGUSR1 was ignored by the command, as it had no child yet.
            asked = name in ("SIGINT", "SIGUSR1")
            if number is not None and (asked or signal.getsignal(number) != signal.SIG_IGN):
                self._previous[number] = signal.signal(number, handler)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def serve(self, child: subprocess.Popen[bytes] | None) -> None:
        """Pass signals on to `child` from now on; also one that asked for the end before."""
        self._child = child
        if child is not None and (owed := self._owed) is not None:
            self._owed = None
            child.send_signal(owed)

    def wait(self, seconds: float) -> bool:
        """Wait, and say whether somebody asked for the end meanwhile."""
        deadline = time.monotonic() + seconds
        while not self.is_ended and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
        return self.is_ended

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.is_ended = True
        # A terminal that is closed is no reason to lose steps.
        number = signal.SIGTERM if number == getattr(signal, "SIGHUP", None) else number
        if self._child is None:
            self._owed = number
        else:
            self._send(number)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._send(number)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._send(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        self._send(signal.SIGCONT)

    def _send(self, number: int) -> None:
        if self._child is not None:
            self._child.send_signal(number)
