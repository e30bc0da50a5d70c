"""A run directory, or another trainer's log, as a case."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from trimtab.doctor.case import Case
from trimtab.errors import TrimtabError
from trimtab.runs.directory import RunDirectory
from trimtab.runs.history import History

if TYPE_CHECKING:
    from trimtab.runs.importers import Imported
    from trimtab.runs.importers.meter import Progress

_NOTHING: Mapping[str, str] = MappingProxyType({})


def open_case(run: RunDirectory) -> Case:
    """What a run left: its record, its per-layer values, and its facts with the settings among them.

    Raises: UsageError when a newer trimtab wrote it; StorageError when it cannot be read.
    """
    facts: Mapping[str, Any] = {}
    with contextlib.suppress(TrimtabError):
        facts = run.read_json(run.facts) if run.facts.exists() else {}
    history = History.read(run.record, statistics=run.statistics, ranks=True)
    return Case(history, settings_of(facts), facts, run.trainer)


def open_foreign_case(
    path: Path, mapping: Mapping[str, str] = _NOTHING, progress: Progress | None = None
) -> tuple[Case, Imported]:
    """The log of another trainer, as `read_foreign` reads it; remedies are in that trainer's words.

    Raises: DataError when nothing can be read as a log; UsageError when there is no file, or the mapping is wrong.
    """
    from trimtab.runs.importers import read_foreign  # a run of our own does not need them

    imported = read_foreign(path, mapping, progress)
    return Case(imported.history, {}, imported.facts, imported.target), imported


def settings_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a run was begun with, by their dotted names; none of a model or optimizer given in Python."""
    identity = facts.get("identity")
    if not isinstance(identity, Mapping):
        return {}
    given = tuple(f"config.{section}." for section in facts.get("given") or ())
    return {
        key.removeprefix("config."): value
        for key, value in identity.items()
        if key.startswith("config.") and not key.startswith(given)
    }
