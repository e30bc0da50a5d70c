"""One writer a run: lock.json says who it is, and the kernel's lock on it ends with the process."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self, final

from trimtab.errors import StorageError
from trimtab.runs.files import SCHEMA

try:
    import fcntl
except ImportError:  # Windows has no flock: there pid, start time and heartbeat decide alone
    fcntl = None  # type: ignore[assignment]

STALE_SECONDS = 60.0
"""A heartbeat older than this belongs to a process that is gone, if nothing better is known of it."""
BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 2.0
# A process's start time is computed from the clock at boot, which time synchronization corrects a little.
_START_TOLERANCE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Holder:
    """Who writes in a run, as lock.json has it."""

    pid: int
    host: str
    process_started: float
    """Unix seconds; tells a process from a later one with the same pid."""
    heartbeat: float
    """Unix seconds of the last sign of life."""


def live_holder(path: Path) -> Holder | None:
    """The process that holds the lock file at `path` now; None when there is none or it is gone."""
    holder = _read(path)
    return holder if holder is not None and _is_alive(holder, path) else None


@final
class Lock:
    """The right to write in a run; held from `acquire` to `close`, or to the death of the process."""

    def __init__(self, path: Path, descriptor: int, holder: Holder) -> None:
        self._path = path
        self._descriptor: int | None = descriptor
        self.holder = holder
        self.previous: Holder | None = None
        """The process that it was taken over from, which ended without letting go."""
        self._next_beat = time.monotonic() + BEAT_SECONDS
        self._taken_over: StorageError | None = None
        self._closed = threading.Event()
        self._one_beat = threading.Lock()
        # Reading text, compiling and evaluating may take longer than other hosts wait for a sign of life.
        threading.Thread(target=self._keep_beating, name="trimtab-heartbeat", daemon=True).start()

    def _keep_beating(self) -> None:
        while not self._closed.wait(BEAT_SECONDS):
            with contextlib.suppress(StorageError):  # the loop hears of it at its next boundary
                self.beat()

    @classmethod
    def acquire(cls, path: Path) -> Self:
        """Take the lock file at `path`, also from a process that is gone.

        Raises: StorageError within about 2 s, naming pid and host, while another live process holds it.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        with _one_at_a_time(path.parent, deadline):
            while True:
                previous, before = _identity(path), _read(path)
                rival = live_holder(path)
                late = time.monotonic() > deadline
                if rival is None:
                    taken = cls._take(path, previous)
                    if taken is not None:
                        taken.previous = before
                        return taken
                elif late or _runs_here(rival) or rival.host != socket.gethostname():
                    raise _refusal(path, rival)
                # The threads of a process that is being killed end, and let go, one after the other.
                time.sleep(0.02)
                if late:
                    raise StorageError(f"{path}: cannot be locked: it changes hands again and again")

    @classmethod
    def _take(cls, path: Path, previous: os.stat_result | None) -> Self | None:
        """Put a lock file of our own in place of the `previous` one; None when another process was faster."""
        import psutil  # readers of a run need none of it

        process = psutil.Process()
        holder = Holder(process.pid, socket.gethostname(), process.create_time(), time.time())
        aside = path.with_name(f".{path.name}.{holder.pid}-{time.monotonic_ns()}")
        try:
            descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except OSError as error:
            raise StorageError(f"{path}: cannot be written ({error.strerror})") from error
        try:
            _write(descriptor, holder)
            _flock(descriptor)
            current = _identity(path)
            if current is None:
                _link(aside, path)
            elif previous is not None and os.path.samestat(current, previous):
                os.replace(aside, path)
            else:
                raise FileExistsError
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, FileExistsError):
                return None
            raise StorageError(f"{path}: cannot be written ({error.strerror})") from error
        finally:
            with contextlib.suppress(OSError):
                aside.unlink()
        lock = cls(path, descriptor, holder)
        if fcntl is None or not _is_flocked(path):
            # Without the kernel's lock two processes may have replaced one stale file: the last one stays.
            time.sleep(0.2)
        if not lock._is_ours():
            lock._closed.set()
            os.close(descriptor)
            return None
        return lock

    def beat(self) -> None:
        """Give a sign of life; call it as often as you like, it writes every few seconds.

        Raises: StorageError when another process has taken the run over, after this one stood still.
        """
        with self._one_beat:
            if self._taken_over is not None:
                raise self._taken_over
            if self._descriptor is None or time.monotonic() < self._next_beat:
                return
            self._next_beat = time.monotonic() + BEAT_SECONDS
            if not self._is_ours():
                rival = _read(self._path)
                self._taken_over = _refusal(self._path, rival) if rival else StorageError(f"{self._path}: was replaced")
                raise self._taken_over
            self.holder = replace(self.holder, heartbeat=time.time())
            with contextlib.suppress(OSError):
                _write(self._descriptor, self.holder)

    def close(self) -> None:
        """Let go; closing again does nothing."""
        self._closed.set()
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            if _identity(self._path) is not None and self._is_ours():
                self._path.unlink()
        os.close(self._descriptor)
        self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_ours(self) -> bool:
        """Whether the file is the one we wrote. A file that somebody removed was not taken by anyone."""
        current = _identity(self._path)
        return current is None or (
            self._descriptor is not None and os.path.samestat(current, os.fstat(self._descriptor))
        )


def _refusal(path: Path, holder: Holder) -> StorageError:
    age = max(0.0, time.time() - holder.heartbeat)
    return StorageError(
        f"{path.parent}: another process writes in this run: pid {holder.pid} on host {holder.host}, "
        f"last sign of life {age:.0f} s ago",
        hint=f"wait for it to end, or end it with: kill {holder.pid}"
        if holder.host == socket.gethostname()
        else f"end it on {holder.host}; {STALE_SECONDS:.0f} s after its last sign of life the run is free",
    )


def _is_alive(holder: Holder, path: Path) -> bool:
    if _runs_here(holder):
        return True
    fresh = time.time() - holder.heartbeat < STALE_SECONDS
    if holder.host != socket.gethostname():
        return fresh
    # Containers may share a host's name but not its pids: there only the kernel's lock tells. Where the pid is there
    # and the lock is held, a clock that was set meanwhile has changed the start time and the heartbeat's age.
    return (fresh or _has_process(holder.pid)) and _is_flocked(path)


def _has_process(pid: int) -> bool:
    import psutil

    return bool(psutil.pid_exists(pid))


def _runs_here(holder: Holder) -> bool:
    """Whether the very process runs on this host, as far as its pid can be seen from here."""
    if holder.host != socket.gethostname():
        return False
    import psutil  # readers of a run that is over need none of it

    try:
        process = psutil.Process(holder.pid)
        same = abs(process.create_time() - holder.process_started) < _START_TOLERANCE_SECONDS
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.AccessDenied:
        return True
    except psutil.Error:
        return False


def _identity(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _read(path: Path) -> Holder | None:
    try:
        content = json.loads(path.read_bytes())
        return Holder(
            int(content["pid"]),
            str(content["host"]),
            float(content["process_started"]),
            float(content["heartbeat"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(descriptor: int, holder: Holder) -> None:
    # Padded to one length and written at once, so that a reader never meets half of it.
    text = json.dumps({"schema": SCHEMA, **asdict(holder)}).ljust(400) + "\n"
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, text.encode())


def _link(aside: Path, path: Path) -> None:
    """Give `aside` the name `path`, which must be free; where there are no hard links, by renaming."""
    try:
        os.link(aside, path)
    except FileExistsError:
        raise
    except OSError:
        os.replace(aside, path)


def _flock(descriptor: int) -> None:
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_flocked(path: Path) -> bool:
    """Whether a process holds the kernel's lock on `path`; False where the filesystem has none."""
    if fcntl is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        # Shared, so that those who only look do not meet each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def _one_at_a_time(folder: Path, deadline: float) -> Iterator[None]:
    """Let one process at a time look at a lock and take it, by the kernel's lock on the folder."""
    if fcntl is None:
        yield
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be locked ({error.strerror})") from error
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StorageError(f"{folder}: another process is about to start in this run") from None
                time.sleep(0.02)
            except OSError:
                break
        yield
    finally:
        os.close(descriptor)
