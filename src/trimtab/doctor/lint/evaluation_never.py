"""evaluation-never: there is no evaluation before the last step.

Looks for: `evaluation.every` of `training.steps` or more, in a run of several steps.
Why: overfitting, divergence of the validation loss and the best checkpoint are seen by evaluations alone; early
    stopping cannot act without one.
Evidence: the two settings.
Remedy: ten evaluations or so in a run.
False alarms: measurements of speed. Of a run of fewer than 100 steps, which tries a set-up, it is a note.
Source: own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config
from trimtab.doctor.lint.finding import TRIAL_STEPS, LintFinding


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns when the first evaluation is the last."""
    steps, every = config.training.steps, config.evaluation.every
    if every >= steps > 1:
        yield LintFinding(
            "evaluation-never",
            "info" if steps < TRIAL_STEPS else "warning",
            "evaluation.every",
            f"every {every} steps in a run of {steps}: the only evaluation is at the end",
            "nothing can tell overfitting, and no earlier checkpoint can be the best",
            f"evaluation.every={max(1, steps // 10)}",
            "own",
        )
