"""`trimtab.init`, `log` and `finish`, in the shape that users of Weights & Biases know: one run of the process."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from trimtab.errors import UsageError
from trimtab.integrations.logger import TrainingLogger
from trimtab.runs.directory import RunDirectory

_RESUME: Final = {False: "never", True: "allow"}
_current: TrainingLogger | None = None


def init(
    project: str | None = None,
    *,
    name: str | None = None,
    id: str | None = None,
    dir: str | os.PathLike[str] = "runs",
    config: Any = None,
    resume: bool | Literal["allow", "must", "never"] = False,
    **settings: Any,
) -> TrainingLogger:
    """Begin the run of this process, in a new folder of `dir`, or in `<dir>/<id>`; `settings` are TrainingLogger's.

    An earlier run of the process ends here. `resume` "allow" (or True) goes on with `id` where it is there, "must"
    refuses to begin anew.

    Raises: UsageError, StorageError: as TrainingLogger.
    """
    global _current
    how = _RESUME.get(resume, resume) if isinstance(resume, bool) else resume
    if how not in ("allow", "must", "never"):
        raise UsageError(f"resume is True, False, 'allow', 'must' or 'never'. Received: {resume!r}")
    if how == "must" and id is None:
        raise UsageError("resume='must' needs the id of the run to go on with", hint="id is the folder's name in `dir`")
    if _current is not None:
        _current.finish("stopped", "another run began in this process")
        _current = None
    if id is not None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", id):
            raise UsageError(f"id is a folder's name of letters, digits, '.', '_' and '-'. Received: {id!r}")
        path = Path(dir) / id
        if how == "must" and not RunDirectory.is_run(path):
            raise UsageError(f"{path}: there is no run to go on with")
        goes_on = how != "never" and RunDirectory.is_run(path)
        _current = TrainingLogger(path, config, name=name, resume=goes_on, **settings)
    else:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name or project or "run").strip("-.")[:64] or "run"
        path = RunDirectory.create(Path(dir), stem).path
        _current = TrainingLogger(path, config, name=name, **settings)
    return _current


def log(values: Mapping[str, Any], step: int | None = None, commit: bool | None = None) -> None:
    """Metrics of a step of the run: see `TrainingLogger.log`. Raises: UsageError before `init`."""
    _run("log").log(values, step, commit)


def finish(exit_code: int = 0) -> None:
    """End the run of this process. Raises: UsageError before `init`."""
    global _current
    run = _run("finish")
    run.finish(exit_code=exit_code)
    _current = None


def _run(what: str) -> TrainingLogger:
    if _current is None:
        raise UsageError(
            f"trimtab.{what} was called, and no run is open", hint="call trimtab.init() first; it gives the run"
        )
    return _current
