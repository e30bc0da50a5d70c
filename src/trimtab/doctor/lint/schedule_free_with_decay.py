"""schedule-free-with-decay: an optimizer without a schedule has one.

Looks for: `optimizer.name: schedule_free_adamw` with another schedule than `constant`.
Why: the average that is judged stands in for the fall of the rate; falling as well takes the last part of the run from
    it, and ties the result to a length that need not have been known.
Evidence: `optimizer.name` and `schedule.name`.
Remedy: `schedule.name=constant` with a warm-up of 2 to 10 %.
False alarms: none known; both together train, only no better.
Source: Defazio et al. 2024, arXiv 2405.15682, section 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config, ConstantSchedule, ScheduleFreeAdamWConfig
from trimtab.doctor.lint.finding import LintFinding


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns of two things that do the same."""
    if isinstance(config.optimizer, ScheduleFreeAdamWConfig) and not isinstance(config.schedule, ConstantSchedule):
        yield LintFinding(
            "schedule-free-with-decay",
            "warning",
            "schedule.name",
            f"schedule_free_adamw under the schedule {config.schedule.name}",
            "its average of the weights stands in for the fall of the rate",
            "schedule={name: constant, warmup: 0.05}",
            "Defazio et al. 2024, arXiv 2405.15682, section 4",
        )
