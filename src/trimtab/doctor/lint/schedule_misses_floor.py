"""schedule-misses-floor: the learning rate is still high in the last step.

Looks for: a schedule whose last step has more than half of the full rate: a constant one, a `wsd` whose decay is
    no step long, a cycle that ends near its peak, a high floor.
Why: a good part of what a run can reach comes from the fall of the rate at its end; a model at the full rate
    hovers above the minimum.
Evidence: the factor of the schedule in the last step.
Remedy: `schedule.name=cosine`, or a decay of 10 to 20 % of the steps with `wsd`.
False alarms: the stable part of a longer plan, whose decay is run later; warm-starts; tests of a few steps. With an
    optimizer that needs no fall, and where `control.learning_rate` lowers the rate at a plateau, it is silent.
Source: Hu et al. 2024, arXiv 2404.06395, section 4; Hägele et al. 2024, arXiv 2405.18392.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import (
    Config,
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    PiecewiseSchedule,
    PlateauControl,
    ScheduleFreeAdamWConfig,
    StepSchedule,
    WsdSchedule,
)
from trimtab.doctor.lint.finding import LintFinding
from trimtab.schedules import build_schedule


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Tells when the last step has more than half of the full rate."""
    steps = config.training.steps
    factor = build_schedule(config.schedule, config.budget(facts.get("tokens_per_epoch"))).factor(steps - 1)
    falls_otherwise = isinstance(config.control.learning_rate, PlateauControl)
    if factor > 0.5 and not falls_otherwise and not isinstance(config.optimizer, ScheduleFreeAdamWConfig):
        schedule = config.schedule
        if isinstance(schedule, PiecewiseSchedule):
            key, fix = "schedule.levels", f"schedule.levels={[*schedule.levels[:-1], 0.1]}"
        elif not isinstance(schedule, ConstantSchedule) and schedule.floor > 0.5:
            key, fix = "schedule.floor", "schedule.floor=0.0"
        elif isinstance(schedule, WsdSchedule):
            key, fix = "schedule.decay", "schedule.decay=0.2"
        elif isinstance(schedule, StepSchedule):
            key, fix = "schedule.every", "schedule.every=0.3"
        elif isinstance(schedule, LinearSchedule | CosineSchedule):
            key, fix = "schedule.warmup", "schedule.warmup=0.05"
        else:
            key, fix = "schedule.name", "schedule.name=cosine"
        yield LintFinding(
            "schedule-misses-floor",
            "info",
            key,
            f"the last step has {factor:.0%} of the full learning rate",
            "much of what a run can reach comes from the fall of the rate at its end",
            fix,
            "Hu et al. 2024, arXiv 2404.06395, section 4; Hägele et al. 2024, arXiv 2405.18392",
        )
