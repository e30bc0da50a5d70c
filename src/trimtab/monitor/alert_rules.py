"""When a rule of `alerts.rules` is met: what it remembers of the metrics, and what it says."""

from __future__ import annotations

import math
import operator
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final, final

import numpy as np

from trimtab.config import AlertRule
from trimtab.events import (
    AlertRaised,
    EvaluationEnded,
    Event,
    ExaminationEnded,
    FindingsChanged,
    FloatArray,
    RunEnded,
    StepsEnded,
)
from trimtab.runs import format
from trimtab.runs.printable import printable
from trimtab.runs.reasons import reason_in_a_line

_COMPARED: Final[Mapping[str, Callable[[FloatArray, float], Any]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
GRAVITY: Final = ("info", "warning", "error")
"""The mildest first."""


@dataclass(frozen=True, slots=True)
class Met:
    """A condition that is met."""

    step: int
    text: str
    subject: str
    """The metric, or the code, kind or status."""
    value: float | None = None
    """The newest of the metric."""


@dataclass(slots=True)
class _Memory:
    """Of one metric."""

    since: int | None = None
    """The step from which on the condition holds without a gap; None while it does not."""
    newest: deque[float] = field(default_factory=deque)
    """The samples that two means are taken over."""


@final
class Watcher:
    """Watches for one rule. A metric is looked at in every sample of it: each step, window, evaluation
    or examination."""

    def __init__(self, rule: AlertRule) -> None:
        self._condition = rule.condition
        self._memories: dict[str, _Memory] = {}
        self._names: dict[str, bool] = {}
        """Names of metrics, and whether they are meant: a window may have thousands."""

    def reset(self) -> None:
        """Forget the metrics: an attempt begins, or a branch that goes on from an earlier step."""
        self._memories.clear()

    def watch(self, event: Event) -> Iterator[Met]:
        """What of `event` meets the condition; at most one for each metric of a window."""
        condition = self._condition
        match event:
            case StepsEnded() if condition.is_of_a_metric:
                for name in self._meant(event.per_step):
                    steps = np.arange(event.first_step, event.last_step + 1)
                    yield from self._look(name, steps, steps, np.asarray(event.per_step[name], dtype=np.float64))
                # What is one value for a window has been so in all its steps.
                first, last = np.array([event.first_step]), np.array([event.last_step])
                for values in (event.values, event.layers):
                    for name in self._meant(values):
                        yield from self._look(name, first, last, np.array([values[name]], dtype=np.float64))
            case EvaluationEnded(step=step) | ExaminationEnded(step=step) if condition.is_of_a_metric:
                at = np.array([step])
                for values in (event.metrics, event.layers if isinstance(event, ExaminationEnded) else {}):
                    for name in self._meant(values):
                        yield from self._look(name, at, at, np.array([values[name]], dtype=np.float64))
            case FindingsChanged() if condition.kind == "finding":
                for finding in event.findings:
                    if self._is_meant_finding(finding):
                        code, severity = (printable(str(finding.get(key, ""))) for key in ("code", "severity"))
                        cause = printable(str(finding.get("cause", "")), limit=400)
                        yield Met(event.step, f"{severity} {code}: {cause}", code)
            case AlertRaised(kind=kind) if condition.kind == "trouble" and kind != "rule":
                if condition.subject in (kind, "any"):
                    yield Met(event.step, printable(event.text, limit=400), kind)
            case RunEnded(status=status) if condition.kind == "end" and condition.subject in (status, "any"):
                reason = printable(reason_in_a_line(event.reason), limit=400)
                yield Met(event.step, f"{status}: {reason}", status)

    def _meant(self, values: Mapping[str, Any]) -> list[str]:
        """The names among `values` that the condition is about."""
        subject = self._condition.subject
        if "*" not in subject:
            return [subject] if subject in values else []
        for name in values.keys() - self._names.keys():
            self._names[name] = fnmatchcase(name, subject)
        return [name for name in values if self._names[name]]

    def _is_meant_finding(self, finding: Mapping[str, Any]) -> bool:
        subject, severity = self._condition.subject, str(finding.get("severity"))
        if subject in GRAVITY:
            return severity in GRAVITY[GRAVITY.index(subject) :]
        return subject in (finding.get("code"), "any") or subject in finding.get("consequences", ())

    def _look(self, name: str, firsts: Any, lasts: Any, samples: FloatArray) -> Iterator[Met]:
        memory = self._memories.setdefault(name, _Memory())
        if self._condition.kind == "change":
            yield from self._look_for_change(name, memory, lasts, samples)
            return
        if self._condition.kind == "not_finite":
            holds = ~np.isfinite(samples)
        else:
            holds = _COMPARED[self._condition.sign](samples, self._condition.number)
        if memory.since is None and not holds.any():
            return
        found: Met | None = None
        for first, last, value, is_so in zip(firsts, lasts, samples, holds, strict=True):
            if not is_so:
                memory.since = None
                continue
            if memory.since is None:
                memory.since = int(first)
            if last - memory.since + 1 >= self._condition.steps:
                found = Met(int(last), self._in_words(name, float(value), memory.since, int(last)), name, float(value))
        if found is not None:
            yield found

    def _in_words(self, name: str, value: float, since: int, last: int) -> str:
        steps = "" if last == since else f", since step {since:,}"
        if self._condition.kind == "not_finite":
            return f"{name} is {value:g}{steps}"
        return f"{name} is {format.decimal(value)}, {self._condition.sign} {self._condition.number:g}{steps}"

    def _look_for_change(self, name: str, memory: _Memory, lasts: Any, samples: FloatArray) -> Iterator[Met]:
        number = self._condition.steps
        found: Met | None = None
        for last, value in zip(lasts, samples, strict=True):
            if not math.isfinite(value):
                continue  # another condition is for these
            memory.newest.append(float(value))
            if len(memory.newest) > 2 * number:
                memory.newest.popleft()
            if len(memory.newest) < 2 * number:
                continue
            whole = np.array(memory.newest)
            before, now = float(whole[:number].mean()), float(whole[number:].mean())
            if abs(now - before) > self._condition.number * abs(before):
                over = "" if number == 1 else f", means of {number:,} values each"
                text = f"{name} went from {format.decimal(before)} to {format.decimal(now)}{over}"
                found = Met(int(last), text, name, float(value))
                memory.newest.clear()  # what was told is not told again as the means move on
        if found is not None:
            yield found
