"""contradicting-targets: the same text stands there with different targets.

Looks for: one in a hundred training texts that is there again with another class, or number.
Why: no model can answer both; the loss has a floor, and the validation set is most likely as contradictory.
Evidence: the fact `contradictions`; without it nothing is said.
Remedy: look at the pairs in facts.json (`duplicates.examples`) and settle them; or ask for several labels at once.
False alarms: texts that are truly ambiguous, where the share of each answer is what is to be learnt.
Source: Northcutt et al. 2021, arXiv 2103.14749.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Classification, Config, Regression
from trimtab.doctor.lint.finding import LintFinding

_FEW = 0.01


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns of one in a hundred."""
    number, texts = facts.get("contradictions", 0), facts.get("training", {}).get("documents", 0)
    if isinstance(config.task, Classification | Regression) and number and texts and number >= _FEW * texts:
        yield LintFinding(
            "contradicting-targets",
            "warning",
            "task.label" if isinstance(config.task, Classification) else "task.value",
            f"{number:,} texts stand in the training set with different targets",
            "no model can answer both, so that the loss has a floor above 0",
            None,
            "Northcutt et al. 2021, arXiv 2103.14749",
        )
