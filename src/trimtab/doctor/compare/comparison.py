"""What a comparison of two runs says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from trimtab.doctor.acts_on import Acts
from trimtab.doctor.case import Case
from trimtab.doctor.finding import Diagnosis, Remedy
from trimtab.runs.leaked import MANY, leaked_share

SCHEMA: Final = 1

Which = Literal["a", "b"]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two runs."""

    name: str
    path: str
    case: Case
    diagnosis: Diagnosis
    environment: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)

    @property
    def leaks(self) -> bool:
        """Whether it was judged on what it was trained on."""
        return leaked_share(self.case.facts, self.case.config, least=MANY) is not None


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not the same in both; None: not known, or not there."""

    what: str
    """A setting by its dotted name, or a fact."""
    kind: Acts
    a: Any
    b: Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a metric came to in both, with the same budget."""

    metric: str
    budget: str
    """"in the whole run", "within 400 steps", "within 2.1M tokens" …"""
    a: float
    b: float
    step_a: int
    step_b: int
    better: Which | None
    """None where the difference is not above `noise`."""
    noise: float | None
    """What differs by chance, where that is known: 95 % of differences of equal runs are smaller."""
    source: str
    """Where `noise` is from."""

    def told(self, a: Side, b: Side) -> str:
        """Which is better, where that can be said of the two sides."""
        if not self.metric.startswith("train/") and (a.leaks or b.leaks):
            who = "both were" if a.leaks and b.leaks else f"{'a' if a.leaks else 'b'} was"
            return f"not comparable: {who} judged on training data"
        how = "faster" if self.metric in ("tokens_per_second", "step_seconds") else "better"
        return "the same but for chance" if self.better is None else f"{self.better} is {how}"


@dataclass(frozen=True, slots=True)
class Parting:
    """Where two curves part for good."""

    metric: str
    same_until: int
    """The last step up to which all values are the same to the bit; 0: from the first they are not."""
    step: int | None
    """From here on they differ by more than noise to the end; None: they do not part."""
    earliest: int | None
    """Noise hides where exactly: not before this step."""
    difference: float
    """b less a, in the end."""
    noise: float
    """Standard deviation of the difference of single steps."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Something that happened in one of them."""

    side: Which
    step: int
    kind: Literal["finding", "decision", "rollback", "resume", "schedule", "best", "end", "alert"]
    text: str


@dataclass(frozen=True, slots=True)
class Reason:
    """What may have made the difference, the likeliest first."""

    what: tuple[str, ...]
    """Settings or facts, by the names of `Change`; the text of a turning point where it is an event."""
    confidence: float
    text: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs beside each other; `a` is the one that was named first."""

    a: Side
    b: Side
    obstacles: tuple[str, ...]
    """Why the losses cannot be held against each other."""
    outcomes: tuple[Outcome, ...]
    """The whole runs first, then equal budgets."""
    changes: tuple[Change, ...]
    partings: tuple[Parting, ...]
    turns: tuple[Turn, ...]
    """By step."""
    reasons: tuple[Reason, ...]
    earlier: tuple[str, ...]
    """What earlier runs of the project say of the same changes."""
    summary: str
    """Three sentences: which is better, what made the difference, what to do."""
    recommendation: Remedy

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "schema": SCHEMA,
            "a": _side(self.a),
            "b": _side(self.b),
            "obstacles": list(self.obstacles),
            "outcomes": [
                {
                    "metric": one.metric,
                    "budget": one.budget,
                    "a": {"value": one.a, "step": one.step_a},
                    "b": {"value": one.b, "step": one.step_b},
                    "better": one.better,
                    "noise": one.noise,
                    "noise_from": one.source,
                }
                for one in self.outcomes
            ],
            "changes": [{"what": one.what, "kind": one.kind, "a": one.a, "b": one.b} for one in self.changes],
            "partings": [
                {
                    "metric": one.metric,
                    "same_until": one.same_until,
                    "step": one.step,
                    "earliest": one.earliest,
                    "difference": one.difference,
                    "noise": one.noise,
                }
                for one in self.partings
            ],
            "turning_points": [
                {"run": one.side, "step": one.step, "kind": one.kind, "text": one.text} for one in self.turns
            ],
            "reasons": [
                {"what": list(one.what), "confidence": round(one.confidence, 2), "text": one.text}
                for one in self.reasons
            ],
            "earlier": list(self.earlier),
            "summary": self.summary,
            "recommendation": {
                "summary": self.recommendation.summary,
                "target": self.recommendation.target,
                "config": dict(self.recommendation.config),
            },
        }


def _side(side: Side) -> dict[str, Any]:
    return {
        "run": side.path,
        "name": side.name,
        "verdict": side.diagnosis.verdict,
        "findings": [one.code for one in side.diagnosis.findings],
    }
