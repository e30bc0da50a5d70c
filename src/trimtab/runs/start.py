"""Where a run begins, or goes on; a start that fails leaves nothing behind."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from trimtab.errors import UsageError
from trimtab.runs.checkpoints import list_checkpoints, verify
from trimtab.runs.directory import RunDirectory
from trimtab.runs.lock import Lock


def outermost_missing(path: Path) -> Path | None:
    """The first folder on the way to `path` that is not there; None when all are."""
    return next((folder for folder in [*reversed(path.parents), path] if not folder.exists()), None)


def open_run(path: Path | None, name: str) -> tuple[RunDirectory, Path | None]:
    """A new run with the outermost folder that was made for it, or an unfinished one to go on with.

    Raises: UsageError when it is already finished.
    """
    made = outermost_missing(path or Path("runs"))
    if path is None:
        run = RunDirectory.create(Path("runs"), name)
        return run, made or run.path
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: a run is a directory, and this is a file")
    if not path.exists() or not any(path.iterdir()):
        return RunDirectory.create_at(path), made
    run = RunDirectory.open(path)
    if (status := run.status()) in ("finished", "stopped"):
        raise UsageError(f"the run {path} is already {status}", hint=f"read it: `trimtab show {path}`")
    run.check_writable()
    return run, None


def start_facts(lock: Lock, begun_seconds: float) -> dict[str, float]:
    """For goodput: seconds since this attempt began, and the last sign of life of one that ended without a word."""
    facts = {"start_seconds": max(0.0, time.time() - begun_seconds)}
    if lock.previous is not None:
        facts["previous_heartbeat_seconds"] = lock.previous.heartbeat
    return facts


def next_attempt(run: RunDirectory) -> tuple[int, int]:
    """The number of the next attempt, from 1, and of the line of history that it writes, from 0."""
    previous = run.attempts()
    attempt = max((line["attempt"] for line in previous), default=0) + 1
    return attempt, max((line["branch"] for line in previous), default=-1) + 1


@contextlib.contextmanager
def undone_on_failure(run: RunDirectory, made: Path | None) -> Iterator[None]:
    """Before the record begins, an error takes away what was written in `run`, and the folders from `made` on.

    A run that held something at entry, apart from its lock, stays as it is.
    """
    if any(entry != run.lock and not entry.name.startswith(".") for entry in run.path.iterdir()):
        yield
        return
    try:
        yield
    except BaseException:
        if not run.record.exists():
            with contextlib.suppress(OSError):
                _take_away(run.path, made)
        raise


def _take_away(path: Path, made: Path | None) -> None:
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    while made is not None and path.is_relative_to(made):
        path.rmdir()  # refused where another run has begun meanwhile
        path = path.parent


def resumes_from(run: RunDirectory, status: str | None = None) -> int | None:
    """The step that `resume` goes on from, 0 for the beginning; None when there is nothing to go on with.

    Neither is there where another program made the steps, which `resume` refuses. `status` is that of the run, where it
    was asked already: it changes while one looks.
    """
    if run.trainer != "trimtab" or (status or run.status()) not in ("killed", "interrupted", "failed"):
        return None
    whole = (info.step for info in reversed(list_checkpoints(run.path)) if not verify(info.path, hashes=False))
    return next(whole, 0)
