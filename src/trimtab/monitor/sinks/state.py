"""What a sink remembers of a run between attempts: sinks/<name>.json in the run directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
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
    steps = (state.get(f"told_{kind}", 0) for kind in ("steps", "evaluations", "examinations"))
    return Told(*(step if isinstance(step, int) else 0 for step in steps))


def as_state(told: Told) -> dict[str, int]:
    """What `told_of` reads."""
    return {f"told_{kind}": step for kind, step in asdict(told).items()}
