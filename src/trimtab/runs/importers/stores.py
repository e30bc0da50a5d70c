"""Stores that hold several runs, and which of them is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trimtab.errors import DataError, UsageError
from trimtab.runs.printable import printable


def choose(runs: Sequence[tuple[str, str]], wanted: str | None, path: Path, notes: list[str]) -> str:
    """The run to read, of `runs` (key and name, the newest first): the one that is `wanted`, else the newest.

    Raises: DataError when there is none; UsageError when `wanted` is not among them.
    """
    shown = printable(str(path))
    if not runs:
        raise DataError(f"{shown}: holds no metrics", hint="give the log of a run that made some steps")
    if wanted is not None:
        for key, name in runs:
            if wanted in (key, name):
                return key
        names = ", ".join(_label(run) for run in runs[:8])
        raise UsageError(f"{shown}: holds no run {printable(wanted, limit=60)!r}", hint=f"it holds {names}")
    if len(runs) > 1:
        names = ", ".join(_label(run) for run in runs[1:5]) + (" …" if len(runs) > 5 else "")
        notes.append(
            f"it holds {len(runs)} runs: the newest, {_label(runs[0])}, was read, not {names}; "
            f"{shown}/<run> reads another"
        )
    return runs[0][0]


def _label(run: tuple[str, str]) -> str:
    return printable(run[1] or run[0], limit=60)
