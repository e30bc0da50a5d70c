"""What a sink was told before: an attempt that goes on tells steps again, which are the same to the bits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from trimtab.events import EvaluationEnded, Event, ExaminationEnded, RunStarted, StepsEnded
from trimtab.monitor.sinks.points import Point
from trimtab.runs.record import decode_line

_LAST_STEP: Final = re.compile(rb'"last_step":(\d+)')
_STEP: Final = re.compile(rb'"step":(\d+)')
_BRANCH: Final = re.compile(rb'"branch":(\d+)')


@dataclass(slots=True)
class Told:
    """Up to which step."""

    steps: int = 0
    evaluations: int = 0
    examinations: int = 0

    @classmethod
    def before(cls, record: Path, branch: int) -> Self:
        """What the branches before `branch` had told when they ended, by the record of the run.

        A rollback, and a resume after settings were changed, take back what lies beyond them: what comes then is new.
        """
        told, attempt = cls(), 0
        try:
            with open(record, "rb") as file:
                for raw in file:
                    found = _BRANCH.search(raw)
                    if found is None or int(found[1]) >= branch:
                        continue
                    if b'"event":"StepsEnded"' in raw and (last := _LAST_STEP.search(raw)) is not None:
                        told.steps = max(told.steps, int(last[1]))
                    elif b'"event":"EvaluationEnded"' in raw and (step := _STEP.search(raw)) is not None:
                        told.evaluations = max(told.evaluations, int(step[1]))
                    elif b'"event":"ExaminationEnded"' in raw and (step := _STEP.search(raw)) is not None:
                        told.examinations = max(told.examinations, int(step[1]))
                    elif b'"event":"RunStarted"' in raw and (line := decode_line(raw)) is not None:
                        if line["attempt"] == attempt or _has_changed(line.get("facts")):
                            told.take_back(line["step"])
                        attempt = line["attempt"]
        except OSError:
            pass
        return told

    def take_back(self, step: int) -> None:
        """Forget what lies beyond `step`."""
        self.steps, self.evaluations = min(self.steps, step), min(self.evaluations, step)
        self.examinations = min(self.examinations, step)

    def is_new(self, event: Event, point: Point) -> bool:
        """Whether `point` of `event` has not been told yet; it counts as told from here on."""
        match event:
            case StepsEnded() if point.step > self.steps:
                self.steps = point.step
            case EvaluationEnded() if point.step > self.evaluations:
                self.evaluations = point.step
            case ExaminationEnded() if point.step > self.examinations:
                self.examinations = point.step
            case StepsEnded() | EvaluationEnded() | ExaminationEnded():
                return False
        return True

    def begins(self, started: RunStarted, record: Path, known: Told | None = None) -> None:
        """An attempt begins; `known` is what the sink itself remembers, None where it does not say.

        What it remembers and the record does not, or the other way round, is told again: rather twice than never.
        """
        before = Told.before(record, started.branch)
        self.steps, self.evaluations = before.steps, before.evaluations
        self.examinations = before.examinations
        if known is not None:
            self.steps, self.evaluations = min(self.steps, known.steps), min(self.evaluations, known.evaluations)
            self.examinations = min(self.examinations, known.examinations)
        if _has_changed(started.facts):
            self.take_back(started.step)


def _has_changed(facts: object) -> bool:
    return isinstance(facts, Mapping) and bool(facts.get("drift"))
