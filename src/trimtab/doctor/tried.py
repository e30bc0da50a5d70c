"""What was tried already against a finding: by the run's own controllers, and in runs beside it that differ little."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trimtab.doctor.case import Case
from trimtab.doctor.load import settings_of
from trimtab.errors import TrimtabError
from trimtab.events import Adjust, Rollback
from trimtab.runs.directory import RunDirectory, list_runs

PROOFS: Final = "proofs"
"""The folder in a run where what was tried to prove a remedy is kept: a folder for each fix, in it the runs."""
MOST_LOOKED_AT: Final = 200
"""Of the runs beside one, the newest."""
_OF_NO_MATTER: Final = ("name", "seed", "sinks", "lint.allow")
_SECTIONS_OF_NO_MATTER: Final = ("alerts.", "hardware.", "logging.", "privacy.", "profile.", "doctor.")


@dataclass(frozen=True, slots=True)
class Tried:
    """A change that was made before."""

    settings: Mapping[str, Any]
    """All settings that differed from the run's, dotted, with the values that were tried."""
    still: frozenset[str]
    """The codes that were found all the same, as warnings or worse."""
    where: str
    """The run that tried it, or who in this one."""


def tried_in_run(case: Case, code: str, onset_step: int) -> list[Tried]:
    """Rates that controllers had lowered the run to before `onset_step`, where `code` began to show all the same."""
    rate = case.setting("optimizer.learning_rate")
    if not isinstance(rate, int | float):
        return []
    found = []
    for taken in case.history.decisions:
        if taken.outcome != "taken" or taken.step >= onset_step:
            continue
        match taken.decision:
            case Adjust(name="learning_rate", value=factor) if factor < 1.0:
                pass
            case Rollback(learning_rate=float(factor)):
                pass
            case _:
                continue
        lower = {"optimizer.learning_rate": rate * factor}
        found.append(Tried(lower, frozenset({code}), f"{taken.controller} at step {taken.step:,} of this run"))
    return found


def tried_beside(run: RunDirectory) -> list[Tried]:
    """Runs in the same folder, and those that were made to prove a remedy for `run`: the same data, other settings.

    Of each its verdict counts; a run without one, or that goes on, tells nothing.
    """
    facts = _facts(run)
    ours = settings_of(facts)
    data = _data(facts)
    if not ours or data is None:
        return []
    found = []
    for other in _others(run):
        theirs = _facts(other)
        if _data(theirs) != data:
            continue
        changed = _differing(ours, settings_of(theirs))
        diagnosis = _read(other, other.diagnosis)
        if changed and diagnosis:
            found.append(Tried(changed, _codes_of(diagnosis), _name(run, other)))
    return found


def _others(run: RunDirectory) -> Iterator[RunDirectory]:
    beside = [other for other in list_runs(run.path.resolve().parent) if other.name != run.name]
    yield from beside[-MOST_LOOKED_AT:]
    with contextlib.suppress(OSError):
        for folder in sorted((run.path / PROOFS).iterdir()):
            yield from list_runs(folder)


def _name(run: RunDirectory, other: RunDirectory) -> str:
    inside: Path = other.path
    with contextlib.suppress(ValueError):
        inside = other.path.relative_to(run.path)
        return str(inside)
    return other.name


def _read(run: RunDirectory, path: Path) -> Mapping[str, Any]:
    with contextlib.suppress(TrimtabError):
        return run.read_json(path) if path.exists() else {}
    return {}


def _facts(run: RunDirectory) -> Mapping[str, Any]:
    return _read(run, run.facts)


def _data(facts: Mapping[str, Any]) -> str | None:
    identity = facts.get("identity")
    found = identity.get("data.fingerprint") if isinstance(identity, Mapping) else None
    return found if isinstance(found, str) else None


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in theirs.items()
        if value != ours.get(key) and key not in _OF_NO_MATTER and not key.startswith(_SECTIONS_OF_NO_MATTER)
    }


def _codes_of(diagnosis: Mapping[str, Any]) -> frozenset[str]:
    findings: Sequence[Mapping[str, Any]] = [
        one for one in diagnosis.get("findings", ()) if isinstance(one, Mapping) and one.get("severity") != "info"
    ]
    return frozenset(
        str(code) for finding in findings for code in (finding.get("code"), *finding.get("consequences", ()))
    )
