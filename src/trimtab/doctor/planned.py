"""The learning rate that a run's settings plan."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from trimtab.doctor.case import Case

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from trimtab.config import Budget, ScheduleConfig


def planned_schedule(case: Case) -> ScheduleConfig | None:
    """The schedule in the settings; None where they have none, or one that this version does not know."""
    if case.setting("schedule.name") is None:
        return None
    from pydantic import ValidationError  # the log of another trainer does not need it

    settings = {
        key.removeprefix("schedule."): value for key, value in case.config.items() if key.startswith("schedule.")
    }
    try:
        schedule: ScheduleConfig = _schedules().validate_python(settings)
    except ValidationError:
        return None
    return schedule


def planned_budget(case: Case) -> Budget:
    """How long the run was to be, in the units that are known."""
    from trimtab.config import Budget

    batch = [
        case.setting(name) for name in ("training.micro_batch_size", "training.accumulation", "data.sequence_length")
    ]
    sizes = [size for size in batch if isinstance(size, int)]
    per_step = sizes[0] * sizes[1] * sizes[2] if len(sizes) == 3 else None
    per_epoch = case.number("tokens_per_epoch")
    return Budget(case.planned_steps, per_step, None if per_epoch is None else int(per_epoch))


def planned_factor(case: Case) -> Callable[[int], float] | None:
    """The part of the full rate at a step, counted from 1, as planned; None where that is not known."""
    schedule = planned_schedule(case)
    if schedule is None or case.planned_steps < 1:
        return None
    from trimtab.config import UnknownLengthError
    from trimtab.schedules import build_schedule

    try:
        built = build_schedule(schedule, planned_budget(case))
    except UnknownLengthError:
        return None
    return lambda step: built.factor(step - 1)


@cache
def _schedules() -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    from trimtab.config import ScheduleConfig

    return TypeAdapter(ScheduleConfig)
