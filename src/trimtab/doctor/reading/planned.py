"""The learning rate that a run's settings plan."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final

from trimtab.doctor.case import Case
from trimtab.doctor.reading.once import once

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from trimtab.config import Budget, ScheduleConfig


_STEPS_KEPT: Final = 65_536
"""Steps of a schedule whose factors are not computed again: more than a curve has buckets, several times."""


@once
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


@once
def planned_budget(case: Case) -> Budget:
    """How long the run was to be, in the units that are known."""
    from trimtab.config import Budget

    length, asked = case.setting("data.sequence_length"), case.setting("training.batch_size")
    if isinstance(asked, str):  # "65536 tokens"
        per_step: int | None = int(asked.partition(" ")[0])
    else:
        divided = [case.setting("training.micro_batch_size"), case.setting("training.accumulation")]
        sizes = [size for size in (length, *([asked] if asked is not None else divided)) if isinstance(size, int)]
        per_step = math.prod(sizes) if len(sizes) == (2 if asked is not None else 3) else None
    per_epoch = case.number("tokens_per_epoch")
    return Budget(case.planned_steps, per_step, None if per_epoch is None else int(per_epoch))


@once
def planned_factor(case: Case) -> Callable[[int], float] | None:
    """The part of the full rate at a step, counted from 1, as planned; None where that is not known."""
    schedule = planned_schedule(case)
    if schedule is None or case.planned_steps < 1:
        return None
    return _factors(schedule.model_dump_json(), planned_budget(case))


@lru_cache(maxsize=8)
def _factors(schedule: str, budget: Budget) -> Callable[[int], float] | None:
    """The same for a schedule in JSON; a run that is judged again asks for the same steps."""
    from trimtab.config import UnknownLengthError
    from trimtab.schedules import build_schedule

    try:
        built = build_schedule(_schedules().validate_json(schedule), budget)
    except UnknownLengthError:
        return None
    return lru_cache(maxsize=_STEPS_KEPT)(lambda step: built.factor(step - 1))


@cache
def _schedules() -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    from trimtab.config import ScheduleConfig

    return TypeAdapter(ScheduleConfig)
