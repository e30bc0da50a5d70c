"""What a sink remembers of a run between attempts: sinks/<name>.json in the run directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab.errors import TrimtabError
from trimtab.monitor.sinks.novelty import Told
from trimtab.runs.files import read_json, write_json


def remembered(path: Path) -> dict[str, Any]:
    """What is remembered at `path`; nothing where that cannot be read."""
    try:
        return read_json(path) if path.exists() else {}
    except TrimtabError:
        return {}


def remember(path: Path, values: Mapping[str, Any]) -> None:
    """Remember `values` at `path`. Raises: StorageError, OSError."""
    path.parent.mkdir(exist_ok=True)
    write_json(path, values)


def told_of(state: Mapping[str, Any]) -> Told:
    """Up to where it was told, as remembered."""
    steps, evaluations = state.get("told_steps", 0), state.get("told_evaluations", 0)
    return Told(steps if isinstance(steps, int) else 0, evaluations if isinstance(evaluations, int) else 0)
