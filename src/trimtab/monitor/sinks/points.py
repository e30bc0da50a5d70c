"""What an event says to a sink, as plain values: points of curves, texts, pictures, histograms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from trimtab.events import (
    Advise,
    AlertRaised,
    ArtifactLogged,
    DecisionTaken,
    Evaluate,
    EvaluationEnded,
    Event,
    ExaminationEnded,
    FindingsChanged,
    RunEnded,
    RunStarted,
    Save,
    StepsEnded,
)
from trimtab.runs.record import event_to_json
from trimtab.runs.summary import describe_decision, describe_finding

Points = Literal["step", "window"]
_SUMMED: Final = frozenset({"tokens", "skipped"})
_LAST: Final = frozenset({"learning_rate", "loss_scale"})


@dataclass(frozen=True, slots=True)
class Point:
    """The values at one step."""

    step: int
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Said:
    """Something in words: an alert, a decision, a finding, a sample, the verdict."""

    step: int
    name: str
    text: str
    level: Literal["info", "warning", "error"] = "info"


def points_of(event: Event, points: Points, *, layers: bool) -> Iterator[Point]:
    """The points of curves in `event`: of a window one a step, or one at its last step."""
    match event:
        case RunStarted():
            yield Point(event.step, {"run/branch": float(event.branch), "run/attempt": float(event.attempt)})
        case StepsEnded():
            yield from _of_steps(event, points, layers)
        case EvaluationEnded():
            yield Point(event.step, dict(event.metrics))
        case ExaminationEnded():
            yield Point(event.step, dict(event.metrics) | (dict(event.layers) if layers else {}))


def _of_steps(event: StepsEnded, points: Points, layers: bool) -> Iterator[Point]:
    whole = dict(event.values) | (dict(event.layers) if layers else {})
    if points == "window":
        yield Point(event.last_step, {name: _reduced(name, array) for name, array in event.per_step.items()} | whole)
        return
    for place in range(event.last_step - event.first_step + 1):
        step = event.first_step + place
        values = {name: float(array[place]) for name, array in event.per_step.items()}
        yield Point(step, values | (whole if step == event.last_step else {}))


def _reduced(name: str, array: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    """One value of a window: the mean, which is not finite where one of its steps is not."""
    if name in _SUMMED:
        return float(array.sum())
    return float(array[-1] if name in _LAST else array.mean())


def said_in(event: Event) -> Iterator[Said]:
    """What `event` says in words."""
    match event:
        case RunStarted(resumed_from=int(step)) if event.attempt:
            yield Said(step, "run", f"goes on from step {step}: attempt {event.attempt}, branch {event.branch}")
        case AlertRaised():
            yield Said(event.step, "alert", event.text, "warning")
        case FindingsChanged():
            for finding in event.findings:
                grave = str(finding.get("severity"))
                level: Literal["info", "warning", "error"] = (
                    "error" if grave == "error" else "warning" if grave == "warning" else "info"
                )
                yield Said(event.step, "finding", describe_finding(finding), level)
        case DecisionTaken(decision=Save() | Evaluate() | Advise()):
            return
        case DecisionTaken():
            yield Said(event.step, "decision", describe_decision(event_to_json(event)))
        case ArtifactLogged(kind="sample" | "text"):
            yield Said(event.step, event.name, event.text)
        case RunEnded():
            level = "error" if event.status == "failed" else "info"
            yield Said(event.step, "end", f"{event.status}: {event.reason}", level)


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """Those that are numbers, for sinks that take no others."""
    return {name: value for name, value in values.items() if np.isfinite(value)}
