"""schedule-misses-floor: the learning rate is still high in the last step.

Looks for: a schedule whose last step has more than half of the full rate: a constant one, a `wsd` whose decay is
    no step long, a cycle that ends near its peak, a high floor.
Why: a good part of what a run can reach comes from the fall of the rate at its end; a model at the full rate
    hovers above the minimum.
Evidence: the factor of the schedule in the last step.
Remedy: a cosine, or a decay of 10 to 20 % of the steps with `wsd`: the first change that lowers the last step's rate
    enough is shown.
False alarms: the stable part of a longer plan, whose decay is run later; warm-starts; tests of a few steps. With an
    optimizer that needs no fall, and where `control.learning_rate` lowers the rate at a plateau, it is silent.
Source: Hu et al. 2024, arXiv 2404.06395, section 4; Hägele et al. 2024, arXiv 2405.18392.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import (
    Config,
    ExponentialSchedule,
    PiecewiseSchedule,
    PlateauControl,
    ScheduleConfig,
    ScheduleFreeAdamWConfig,
    StepSchedule,
    WsdSchedule,
)
from trimtab.doctor.lint.finding import LintFinding
from trimtab.schedules import build_schedule


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Tells when the last step has more than half of the full rate."""
    factor = _last_factor(config.schedule, config, facts)
    falls_otherwise = isinstance(config.control.learning_rate, PlateauControl)
    if factor > 0.5 and not falls_otherwise and not isinstance(config.optimizer, ScheduleFreeAdamWConfig):
        key, fix = next(
            (
                (f"schedule.{name}", f"schedule.{name}={[*value] if isinstance(value, tuple) else value}")
                for name, value in _changes(config.schedule)
                if _last_factor(config.schedule.model_copy(update={name: value}), config, facts) <= 0.5
            ),
            # The whole section: keys of this schedule may be unknown to another.
            ("schedule.name", "schedule={name: cosine, warmup: 0.05}"),
        )
        yield LintFinding(
            "schedule-misses-floor",
            "info",
            key,
            f"the last step has {factor:.0%} of the full learning rate",
            "much of what a run can reach comes from the fall of the rate at its end",
            fix,
            "Hu et al. 2024, arXiv 2404.06395, section 4; Hägele et al. 2024, arXiv 2405.18392",
        )


def _last_factor(schedule: ScheduleConfig, config: Config, facts: Mapping[str, Any]) -> float:
    return build_schedule(schedule, config.budget(facts)).factor(config.training.steps - 1)


def _changes(schedule: ScheduleConfig) -> Iterator[tuple[str, float | tuple[float, ...]]]:
    """What may help while the schedule stays, one value of it at a time."""
    if "floor" in type(schedule).model_fields:
        yield "floor", 0.01 if isinstance(schedule, ExponentialSchedule) else 0.0
    match schedule:
        case WsdSchedule():
            yield "decay", 0.2
        case StepSchedule():
            yield "every", 0.3
            yield "factor", 0.1
        case PiecewiseSchedule():
            yield "levels", (*schedule.levels[:-1], 0.1)
        case _:
            pass
    if "warmup" in type(schedule).model_fields:
        yield "warmup", 0.05
