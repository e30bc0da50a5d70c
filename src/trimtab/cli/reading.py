"""Runs and foreign logs as the commands open them: what was read as what, and how far a large one is read."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from trimtab.cli.options import shown
from trimtab.errors import UsageError

if TYPE_CHECKING:
    from trimtab.doctor import Case
    from trimtab.monitor.sinks.console import Console
    from trimtab.runs.importers import Imported

_SILENT_SECONDS: Final = 1.5


@final
class Reading:
    """Shows the part that is read in a line of the error output, once it takes longer than a moment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin = time.monotonic()
        self._console: Console | None = None

    def __call__(self, part: float) -> None:
        """Show it."""
        if self._console is None:
            if time.monotonic() - self._begin < _SILENT_SECONDS:
                return
            from trimtab.monitor.sinks.console import Console

            self._console = Console(sys.stderr, 1)
        self._console.preparing(f"reading {shown(self._path)}", part)

    def close(self) -> str:
        """Take the line away; says how long it took, or nothing where that was a moment."""
        if self._console is None:
            return ""
        self._console.close()
        from trimtab.runs import format

        size = f"{format.size(self._path.stat().st_size)} " if self._path.is_file() else ""
        return f", {size}in {format.duration(time.monotonic() - self._begin)}"


@dataclass(frozen=True, slots=True)
class Log:
    """A run, or the log of another trainer."""

    case: Case
    name: str
    imported: Imported | None = None
    """How it was read, where another trainer wrote it."""
    took: str = ""

    def notes(self) -> list[str]:
        """What was noticed in reading it, a line each."""
        from trimtab.runs import format

        one = self.imported
        if one is None:
            damaged = self.case.history.damaged_lines
            return [f"damaged: {format.counted(damaged, 'line')} of the record left out"] if damaged else []
        told = [f"read as {one.format}: {one.source}{self.took}"]
        if one.names:
            pairs = (ours if theirs == ours else f"{theirs} = {ours}" for theirs, ours in one.names.items())
            told.append(f"names: {', '.join(pairs)}")
        if one.unused:
            told.append(f"not used: {', '.join(one.unused)}")
        from trimtab.runs.printable import printable

        return [printable(line, limit=1000) for line in [*told, *one.notes]]

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values, under `log`; nothing of a run of ours."""
        one = self.imported
        if one is None:
            return {}
        read = {"format": one.format, "source": shown(one.source), "names": dict(one.names)}
        return {"log": read | {"unused": list(one.unused), "notes": list(one.notes)}}


def open_log(path: Path, mapping: list[str]) -> Log:
    """The run or the log at `path`. Raises: UsageError, DataError."""
    from trimtab.doctor.load import open_case, open_foreign_case
    from trimtab.runs import RunDirectory

    names = names_given(mapping)
    if RunDirectory.is_run(path):
        run = RunDirectory.open(path)
        return Log(open_case(run), run.name)
    reading = Reading(path)
    try:
        case, imported = open_foreign_case(path, names, reading)
    finally:
        took = reading.close()
    return Log(case, path.name, imported, took)


def names_given(mapping: list[str]) -> dict[str, str]:
    """What `--map` says: their names of metrics to ours."""
    names = {}
    for pair in mapping:
        theirs, equals, ours = pair.rpartition("=")
        if not equals or not theirs or not ours:
            raise UsageError(f"--map: must be theirs=ours, such as my_loss=train/loss. Received: {pair!r}")
        names[theirs] = ours
    return names
