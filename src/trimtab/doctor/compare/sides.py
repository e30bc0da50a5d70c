"""A run, or another trainer's log, as one side of a comparison."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from trimtab.doctor.compare.comparison import Side
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.load import open_case, open_foreign_case
from trimtab.errors import TrimtabError
from trimtab.runs.directory import RunDirectory

_NOTHING: Mapping[str, str] = MappingProxyType({})


def open_side(path: Path, mapping: Mapping[str, str] = _NOTHING) -> Side:
    """What is known of the run at `path`.

    Raises: UsageError, DataError or StorageError when it cannot be read.
    """
    if not RunDirectory.is_run(path):
        case, _ = open_foreign_case(path, mapping)
        return Side(path.name, str(path), case, diagnose(case, path.name))
    run = RunDirectory.open(path)
    case = open_case(run)
    return Side(run.name, str(path), case, diagnose(case, run.name), _read(run, run.environment), _read(run, run.plan))


def _read(run: RunDirectory, path: Path) -> Mapping[str, Any]:
    with contextlib.suppress(TrimtabError):
        return run.read_json(path) if path.exists() else {}
    return {}
