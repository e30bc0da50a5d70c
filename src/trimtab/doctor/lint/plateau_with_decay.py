"""plateau-with-decay: two things lower the learning rate, and neither knows of the other.

Looks for: `control.learning_rate.name=plateau` beside a schedule that ends below half of the full rate.
Why: the factors multiply. A schedule that decays makes late evaluations better by itself, so that the plateau is found
    late or never; and where it is found, the rate falls below what either would have chosen, and training stands still
    before its end.
Evidence: the schedule's factor at the last step.
Remedy: a constant rate after the warm-up, which the plateau alone lowers; or the schedule alone.
False alarms: a plateau meant as a brake for runs that go wrong, with much patience.
Source: own; torch's ReduceLROnPlateau replaces a schedule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config, PlateauControl, rise_of
from trimtab.doctor.lint.finding import LintFinding
from trimtab.schedules import build_schedule

_FALLEN = 0.5


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns when the schedule alone ends below half of the full rate."""
    if not isinstance(config.control.learning_rate, PlateauControl):
        return
    schedule = build_schedule(config.schedule, config.budget(facts))
    last = schedule.factor(config.training.steps - 1)
    if last >= _FALLEN:
        return
    key, rise = rise_of(config.schedule)
    warmup = rise if key == "schedule.warmup" else 0.02
    written = f"'{rise}'" if isinstance(warmup, str) else warmup
    yield LintFinding(
        "plateau-with-decay",
        "warning",
        "control.learning_rate",
        f"the schedule {config.schedule.name} falls to {last:.0%} of the full rate by itself",
        "its factor and that of the plateau multiply, so that the rate falls below what either would have chosen",
        f"schedule={{name: constant, warmup: {written}}}",
        "own",
    )
