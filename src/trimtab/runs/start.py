"""A start that fails leaves nothing behind."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from trimtab.runs.directory import RunDirectory


def outermost_missing(path: Path) -> Path | None:
    """The first folder on the way to `path` that is not there; None when all are."""
    return next((folder for folder in [*reversed(path.parents), path] if not folder.exists()), None)


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
