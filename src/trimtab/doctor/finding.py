"""What the doctor says: findings with evidence and remedies, and the diagnosis that holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

SCHEMA: Final = 1

Severity = Literal["info", "warning", "error"]
Verdict = Literal["healthy", "attention", "failed"]
Target = Literal[
    "trimtab", "huggingface", "lightning", "nanogpt", "megatron", "fairseq", "mmengine", "ultralytics", "keras", "text"
]
"""Whose words a remedy's settings are in; "text": of a trainer that is not known, in those of torch."""

SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
"""The mildest first."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One observation that speaks for a finding."""

    metric: str
    """Name of the series, or of the setting or fact."""
    steps: tuple[int, int]
    """Where to look, both included."""
    observed: float | None
    expected: float | None
    """What a sound run would show there: a bound or a usual value."""
    text: str
    """The observation in a sentence, with its numbers."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change that is likely to help."""

    summary: str
    target: Target = "text"
    config: Mapping[str, Any] = field(default_factory=dict)
    """`section.key` to the proposed value, in the words of `target`."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or that a reader should know."""

    code: str
    severity: Severity
    confidence: float
    """How sure the doctor is that this is the cause, 0 to 1."""
    onset_step: int
    """Where it begins to show."""
    cause: str
    """What happens and why, in a sentence or two that need no other."""
    evidence: tuple[Evidence, ...] = ()
    consequences: tuple[str, ...] = ()
    """Codes of what this finding explains."""
    remedies: tuple[Remedy, ...] = ()


@dataclass(frozen=True, slots=True)
class Withheld:
    """A finding that what was logged can neither support nor exclude."""

    code: str
    needs: tuple[str, ...]
    """What to log, so that it can."""


def that_can_be_logged(withheld: Sequence[Withheld]) -> tuple[Withheld, ...]:
    """Those that a log of another trainer could tell of: facts are what our own runs know of their data and model."""
    return tuple(one for one in withheld if not any("facts." in need or "yardsticks" in need for need in one.needs))


@dataclass(frozen=True, slots=True)
class Break:
    """A metric leaves its course: somewhere between two steps, both included."""

    metric: str
    earliest: int
    latest: int
    """Here it is certain."""
    direction: Literal["up", "down", "not finite"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The verdict on a run, or on the part of it that was read."""

    run: str
    verdict: Verdict
    findings: tuple[Finding, ...]
    """In causal order: what explains most comes first."""
    withheld: tuple[Withheld, ...]
    summary: str
    """Three sentences: how the run went, what leads, what to do next."""
    order: tuple[Break, ...] = ()
    """What broke around the onset of the first finding, the earliest first; () where that was not asked."""
    unit: Literal["step", "epoch"] = "step"
    """What `onset_step` and `steps` count, and the texts call them: epochs in a log that has a row for each."""
    beaten_by: str = ""
    """What a run that is over does not come below, though nothing is wrong with it: it learned little."""
    guesses: tuple[Finding, ...] = ()
    """What else a log of another trainer resembles, the likeliest first: no rule found it, no verdict hangs on it."""

    @property
    def named(self) -> tuple[Finding, ...]:
        """What was found, then what else it could be."""
        return self.findings + self.guesses

    def to_json(self) -> dict[str, Any]:
        """The diagnosis as JSON values, in the shape of the contract."""
        return {
            "schema": SCHEMA,
            "run": self.run,
            "verdict": self.verdict,
            "findings": [
                *(finding_to_json(finding) for finding in self.findings),
                *(finding_to_json(guess) | {"guess": True} for guess in self.guesses),
            ],
            "withheld": [{"code": item.code, "needs": list(item.needs)} for item in self.withheld],
            "summary": self.summary,
            "order": [
                {"metric": one.metric, "steps": [one.earliest, one.latest], "direction": one.direction}
                for one in self.order
            ],
            **({"unit": self.unit} if self.unit != "step" else {}),
            **({"beaten_by": self.beaten_by} if self.beaten_by else {}),
        }


def finding_to_json(finding: Finding) -> dict[str, Any]:
    """One finding as JSON values, in the shape of the contract."""
    return {
        "code": finding.code,
        "severity": finding.severity,
        "confidence": round(finding.confidence, 2),
        "onset_step": finding.onset_step,
        "cause": finding.cause,
        "evidence": [
            {
                "metric": item.metric,
                "steps": list(item.steps),
                "observed": _rounded(item.observed),
                "expected": _rounded(item.expected),
                "text": item.text,
            }
            for item in finding.evidence
        ],
        "consequences": list(finding.consequences),
        "remedies": [
            {"summary": remedy.summary, "target": remedy.target, "config": dict(remedy.config)}
            for remedy in finding.remedies
        ],
    }


def _rounded(value: float | None) -> float | str | None:
    """Six digits, the same on every machine; non-finite numbers as the record writes them."""
    if value is None:
        return None
    return float(f"{value:.6g}") if abs(value) < float("inf") else str(value)


def more_severe(one: Severity, other: Severity) -> Severity:
    """The graver of two."""
    return max(one, other, key=SEVERITIES.index)
