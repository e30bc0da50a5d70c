"""Ask the doctor while a run goes on, show what is new, and act upon it where that is asked for."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from trimtab.control.acts import Acts
from trimtab.control.tripwire import Tripwire
from trimtab.doctor.case import Case
from trimtab.doctor.diagnose import findings_of
from trimtab.doctor.finding import SEVERITIES, Finding, finding_to_json
from trimtab.doctor.load import settings_of
from trimtab.events import Advise, Decision, DecisionTaken, EvaluationEnded, Event, RunStarted, StepsEnded
from trimtab.runs.history import History

MOST_TIMES: Final = 40
"""So often is the doctor asked at evaluations of a run at most, and so often where its tripwire trips."""
SHARE: Final = 0.001
"""The part of the run's time that advice may cost."""


@final
class Doctor:
    """Diagnoses at evaluations, forty times a run at most, and advises on what is new or graver than before.

    With a `tripwire` it is also asked where that trips between evaluations, as often at most, and as far apart. With
    `acts` it does something about what can be met, after it was told: at the next window or evaluation.
    Advice costs a thousandth of the run's time, as its steps and evaluations measured it, and so in a short run comes
    at few evaluations; which ones, the clock says. Not so where the tripwire trips, which cannot wait, nor with `acts`:
    what changes the run must come at the same step in every rerun.
    It says at most one thing an event, the gravest first; the rest waits for the next. The history is no part of
    its state: after a resume or a rollback it is read anew from the record, which is the truth, once the first window
    of the new branch is there, as that one takes back what the old branch told of the same steps.
    """

    name = "doctor"

    def __init__(
        self,
        tripwire: Tripwire | None = None,
        acts: Acts | None = None,
        *,
        now: Callable[[], float] = time.thread_time,
    ) -> None:
        self._tripwire, self._acts, self._now = tripwire, acts, now
        self._history = History()
        self._record: Path | None = None
        """Where the history is to be read from, until the first window of a branch is there."""
        self._facts: Mapping[str, Any] = {}
        self._settings: Mapping[str, Any] = {}
        self._told: dict[str, int] = {}
        self._to_tell: list[dict[str, Any]] = []
        self._asked = -1
        self._looked = 0
        """The step at which the tripwire last had it asked."""
        self._every = 0
        self._times, self._run_seconds, self._spent_seconds = 0, 0.0, 0.0
        self._failed = False

    def decide(self, event: Event) -> Decision | None:
        """What is new since the last evaluation, one finding at a time; or what to do about it."""
        begun = self._now()
        try:
            return self._advise(event)
        except Exception as error:  # advice must never cost a run
            if not self._failed:
                warnings.warn(f"the doctor failed and is silent from here on: {error!r}", stacklevel=2)
            self._failed = True
            return None
        finally:
            self._spent_seconds += self._now() - begun

    def _advise(self, event: Event) -> Decision | None:
        if isinstance(event, RunStarted):
            self._start(event)
            return None
        if self._failed:
            return None
        if self._record is not None:
            if not isinstance(event, StepsEnded):
                return None
            self._history = History.read(
                self._record, statistics=self._record.with_name("statistics"), windows_before=event.first_step
            )
            self._record = None
        self._history.observe(event)
        if isinstance(event, DecisionTaken):  # an answer to it would be lost
            if self._acts is not None and event.controller == self.name and not isinstance(event.decision, Advise):
                self._acts.hear(event)
            return None
        is_asked = self._is_time(event)
        if is_asked:
            self._times += 1
            case = Case(self._history, self._settings, self._facts)
            findings, _ = findings_of(case)
            self._to_tell = [finding_to_json(finding) for finding in findings if self._is_news(finding)]
            if self._acts is not None:
                self._acts.consider(findings, self._history.last_step)
        # Never at once: whether there is something to tell first may hang on the clock, which an act must not.
        acts = None if is_asked or not isinstance(event, StepsEnded | EvaluationEnded) else self._acts
        if acts is not None and (decision := acts.take()) is not None:
            return decision
        if not self._to_tell:
            return None
        finding = self._to_tell.pop(0)
        self._told[finding["code"]] = SEVERITIES.index(finding["severity"])
        return Advise(f"{finding['code']}: {finding['cause']}", finding)

    def _is_time(self, event: Event) -> bool:
        if isinstance(event, EvaluationEnded):
            self._run_seconds += event.seconds
            if event.step - self._asked < self._every or not self._is_paid():
                return False
            self._asked = event.step
            return True
        if isinstance(event, StepsEnded) and (seconds := event.per_step.get("step_seconds")) is not None:
            self._run_seconds += float(np.nansum(seconds))
        if self._tripwire is None or not isinstance(event, StepsEnded) or not self._tripwire.trips(event):
            return False
        if event.last_step - self._looked < self._every:
            return False
        self._looked = event.last_step
        return True

    def _is_paid(self) -> bool:
        """Whether what it took, with one more time, is its share or less; the first time is free, and so are acts."""
        if self._acts is not None or not self._times:
            return True
        return self._spent_seconds * (self._times + 1) / self._times <= SHARE * self._run_seconds

    def _start(self, event: RunStarted) -> None:
        """Begin, or go on with the history of the branch that survived."""
        if self._facts:
            self._to_tell = []  # a rollback: what the abandoned branch showed is not news any more
        if self._acts is not None:
            self._acts.starts(event.step)
        self._facts = event.facts or self._facts
        self._settings = settings_of(self._facts)
        self._asked, self._looked = min(self._asked, event.step), min(self._looked, event.step)
        self._every = event.total_steps // MOST_TIMES
        run = self._facts.get("run")
        if event.resumed_from is not None and run is not None:
            self._record = Path(run) / "record.jsonl"
        else:
            self._history, self._record = History(), None
            self._history.observe(event)

    def _is_news(self, finding: Finding) -> bool:
        """Warnings and errors, each once, and once more when it becomes graver."""
        return SEVERITIES.index(finding.severity) > self._told.get(finding.code, 0)

    def state(self) -> dict[str, Any]:
        """The severity at which each code was told, what is still to be told, when it was last asked, how often,
        how long the run and it took, and what its tripwire and its acts remember."""
        return {
            "told": dict(self._told),
            "to_tell": list(self._to_tell),
            "asked": self._asked,
            "looked": self._looked,
            "times": self._times,
            "run_seconds": self._run_seconds,
            "spent_seconds": self._spent_seconds,
            "tripwire": None if self._tripwire is None else self._tripwire.state(),
            "acts": None if self._acts is None else self._acts.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` says."""
        self._told, self._to_tell = dict(state["told"]), list(state["to_tell"])
        self._asked, self._looked = int(state["asked"]), int(state.get("looked", 0))
        self._times = int(state.get("times", 0))
        self._run_seconds = float(state.get("run_seconds", 0.0))
        self._spent_seconds = float(state.get("spent_seconds", 0.0))
        if self._tripwire is not None and (kept := state.get("tripwire")) is not None:
            self._tripwire.load_state(kept)
        if self._acts is not None and (kept := state.get("acts")) is not None:
            self._acts.load_state(kept)
