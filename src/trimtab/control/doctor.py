"""Ask the doctor while a run goes on, and show what is new."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from trimtab.doctor.case import Case
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.finding import SEVERITIES, Finding, finding_to_json
from trimtab.doctor.load import settings_of
from trimtab.events import Advise, EvaluationEnded, Event, RunStarted
from trimtab.runs.history import History


@final
class Doctor:
    """Diagnoses at every evaluation, and advises on each finding that is new or graver than before.

    It says at most one thing an event, the gravest first; the rest waits for the next. The history is no part of
    its state: after a resume or a rollback it is read anew from the record, which is the truth.
    """

    name = "doctor"

    def __init__(self) -> None:
        self._history = History()
        self._facts: Mapping[str, Any] = {}
        self._told: dict[str, int] = {}
        self._to_tell: list[dict[str, Any]] = []

    def decide(self, event: Event) -> Advise | None:
        """What is new since the last evaluation, one finding at a time."""
        if isinstance(event, RunStarted):
            self._start(event)
            return None
        self._history.observe(event)
        if isinstance(event, EvaluationEnded):
            case = Case(self._history, settings_of(self._facts), self._facts)
            self._to_tell = [finding_to_json(finding) for finding in diagnose(case).findings if self._is_news(finding)]
        if not self._to_tell:
            return None
        finding = self._to_tell.pop(0)
        self._told[finding["code"]] = SEVERITIES.index(finding["severity"])
        return Advise(f"{finding['code']}: {finding['cause']}", finding)

    def _start(self, event: RunStarted) -> None:
        """Begin, or go on with the history of the branch that survived."""
        if self._facts:
            self._to_tell = []  # a rollback: what the abandoned branch showed is not news any more
        self._facts = event.facts or self._facts
        run = self._facts.get("run")
        if event.resumed_from is not None and run is not None:
            self._history = History.read(Path(run) / "record.jsonl", statistics=Path(run) / "statistics")
        else:
            self._history = History()
            self._history.observe(event)

    def _is_news(self, finding: Finding) -> bool:
        """Warnings and errors, each once, and once more when it becomes graver."""
        return SEVERITIES.index(finding.severity) > self._told.get(finding.code, 0)

    def state(self) -> dict[str, Any]:
        """The severity at which each code was told, and what is still to be told."""
        return {"told": dict(self._told), "to_tell": list(self._to_tell)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` says."""
        self._told, self._to_tell = dict(state["told"]), list(state["to_tell"])
