"""stopping-before-decay: early stopping may end the run before the learning rate has fallen.

Looks for: a schedule that falls below half of the full rate, and a patience that may run out before it does.
    The earliest stop is after the first evaluation and `patience` more of them without improvement.
Why: at a high rate the loss goes sideways for long, and falls once the rate does: the patience is spent just
    before it would have been rewarded.
Evidence: the factor of the schedule at step `(patience + 1) * evaluation.every`. The boundary is one half: by
    then most of what the decay gains is yet to come, after it the loss falls steadily.
Remedy: more patience, rarer evaluations, or no early stopping where the budget is fixed.
False alarms: fine-tuning, where overfitting comes long before the schedule's end.
Source: own; the table of combinations in the project's rules of thumb.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config, PatienceStopping
from trimtab.doctor.lint.finding import LintFinding
from trimtab.schedules import build_schedule

_FALLEN = 0.5


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns when the earliest stop has more than half of the full rate, and the run would have had less."""
    steps, every, stopping = config.training.steps, config.evaluation.every, config.stopping
    if not isinstance(stopping, PatienceStopping):
        return
    schedule = build_schedule(config.schedule, config.budget(facts))
    earliest = (stopping.patience + 1) * every
    if earliest >= steps or schedule.factor(steps - 1) > _FALLEN or schedule.factor(earliest - 1) <= _FALLEN:
        return
    enough = next(
        (n for n in range(stopping.patience, steps // every) if schedule.factor((n + 1) * every - 1) <= _FALLEN),
        None,
    )
    yield LintFinding(
        "stopping-before-decay",
        "warning",
        "stopping.patience",
        f"early stopping may end the run at step {earliest} of {steps}, at {schedule.factor(earliest - 1):.0%} "
        "of the full learning rate",
        "at a high rate the loss goes sideways, and it falls when the rate does",
        "stopping.name=none" if enough is None else f"stopping.patience={enough}",
        "own",
    )
