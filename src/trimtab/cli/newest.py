"""Which run is meant where none is named: the newest in runs/."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from trimtab.cli.options import shown
from trimtab.errors import UsageError

if TYPE_CHECKING:
    from trimtab.runs import RunDirectory


def newest_run(command: str) -> RunDirectory:
    """The newest run in runs/, of those that go on if any does. Raises: UsageError when there is none."""
    from trimtab.runs import list_runs, live_holder

    found = list_runs(Path("runs"))
    if not found:
        raise UsageError(
            "there is no run in runs/", hint=f"`trimtab {command} RUN` takes another; `trimtab demo` begins one"
        )
    live = [run for run in found if live_holder(run.lock) is not None]
    return max(live or found, key=begun)


def tell_newest(command: str) -> Path:
    """The path of the newest run, which is told on stderr. Raises: UsageError when there is none."""
    path = newest_run(command).path
    typer.echo(f"{shown(path)}, the newest run in runs/", err=True)
    return path


def begun(run: RunDirectory) -> float:
    """When its configuration was written, in seconds since 1970; 0 where nobody can say."""
    try:
        return (run.config if run.config.exists() else run.path).stat().st_mtime
    except OSError:
        return 0.0
