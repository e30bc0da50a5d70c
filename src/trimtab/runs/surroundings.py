"""environment.json and, where it may be kept, the uncommitted changes beside it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from trimtab.config import Config
from trimtab.runs.directory import RunDirectory
from trimtab.runs.environment import environment
from trimtab.runs.files import write_json, write_text
from trimtab.runs.git_diff import git_diff


def write_surroundings(run: RunDirectory, config: Config, source: str, gpu: str | None) -> None:
    """Write what a reader of the run needs of where it was begun; `gpu` is what its device is called.

    Raises: StorageError.
    """
    said, text = git_diff(Path.cwd(), config.privacy.git_diff)
    kept = run.artifacts / "changes.diff"
    if text:
        said = {"path": str(kept.relative_to(run.path)), **said}
    surroundings = environment(seed=config.seed, source=source, diff=said)
    surroundings["hardware"]["gpu"] = gpu
    write_json(run.environment, surroundings)
    if text:
        run.artifacts.mkdir(exist_ok=True)
        write_text(kept, text)
    else:
        with contextlib.suppress(OSError):
            kept.unlink()
