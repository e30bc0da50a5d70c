"""swa-with-decay: weights are averaged while the learning rate goes to zero.

Looks for: `averaging.name: swa` under a schedule whose last step has less than a tenth of the rate at its start.
Why: an equal mean gains from weights that lie apart, on all sides of a minimum, which a constant or cyclic rate gives.
    Where the rate goes to zero they no longer move: the mean is little but the last weights, made older by the first.
Evidence: the factor of the schedule where the average begins, and in the last step.
Remedy: a high floor (`schedule.floor=0.5`), a constant rate from the start on, or cycles; or `averaging.name=ema`.
False alarms: with `checkpoint.metric` at the plain loss the average is only looked at.
Source: Izmailov et al. 2018, arXiv 1803.05407, sections 3.2 and 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config, SwaConfig, steps_of
from trimtab.doctor.lint.finding import LintFinding
from trimtab.schedules import build_schedule

_PART = 0.1


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns when the rate falls to less than a tenth while weights are averaged."""
    if not isinstance(config.averaging, SwaConfig):
        return
    budget = config.budget(facts)
    schedule, start = build_schedule(config.schedule, budget), steps_of(config.averaging.start, budget)
    first, last = schedule.factor(min(start, budget.steps - 1)), schedule.factor(budget.steps - 1)
    if last >= _PART * first:
        return
    has_floor = hasattr(config.schedule, "floor")
    yield LintFinding(
        "swa-with-decay",
        "warning",
        "averaging.name",
        f"weights are averaged while the learning rate falls from {first:.0%} to {last:.1%} of the full one",
        "an equal mean gains from weights that lie apart, and at a rate near zero they do not move",
        "schedule.floor=0.5" if has_floor else "schedule={name: constant, warmup: 0.05}",
        "Izmailov et al. 2018, arXiv 1803.05407, sections 3.2 and 4",
    )
