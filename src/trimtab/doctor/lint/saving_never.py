"""saving-never: the first checkpoint would be the last.

Looks for: a run of several steps in which `checkpoint.every` steps pass no earlier than its end, and no evaluation
    before that would save the best.
Why: a run that is killed begins anew, and no earlier weights can be restored.
Evidence: `checkpoint.every` (`evaluation.every` if not given), `checkpoint.keep_best` and `evaluation.every`.
Remedy: ten saves or so in a run.
False alarms: measurements of speed; runs of a minute. Of a run of fewer than 100 steps, which tries a set-up, it is a
    note.
Source: own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config
from trimtab.doctor.lint.finding import TRIAL_STEPS, LintFinding


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns when nothing is saved before the last step."""
    steps, every = config.training.steps, config.save_every
    first = min(every, config.evaluation.every) if config.checkpoint.keep_best else every
    if first >= steps > 1:
        yield LintFinding(
            "saving-never",
            "info" if steps < TRIAL_STEPS else "warning",
            "checkpoint.every",
            f"the first checkpoint of {steps} steps would be saved after the last",
            "killed before, the run begins anew",
            f"checkpoint.every={max(1, steps // 10)}",
            "own",
        )
