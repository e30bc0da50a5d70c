"""smoothing-beside-teacher: label smoothing of a model that learns from a teacher.

Looks for: `objective.label_smoothing` above 0 beside `objective.distillation`.
Why: the teacher's answers say how classes resemble each other, and are soft already; smoothing says that all others are
alike, and pulls the other way. A teacher that was trained with smoothing has little of that to pass on, either.
Evidence: `objective.label_smoothing`, `objective.distillation`.
Remedy: no smoothing, here and in the teacher's run.
False alarms: labels that are often wrong, against which smoothing helps whoever teaches.
Source: Müller et al. 2019, arXiv 1906.02629, section 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config, CrossEntropyConfig
from trimtab.doctor.lint.finding import LintFinding


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns of both together."""
    objective = config.objective
    if isinstance(objective, CrossEntropyConfig) and objective.distillation and objective.label_smoothing > 0:
        yield LintFinding(
            "smoothing-beside-teacher",
            "warning",
            "objective.label_smoothing",
            f"label smoothing of {objective.label_smoothing} beside objective.distillation",
            "the teacher's answers are soft already, and say which classes are alike, which smoothing denies",
            "objective.label_smoothing=0.0",
            "Müller et al. 2019, arXiv 1906.02629",
        )
