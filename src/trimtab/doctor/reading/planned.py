"""The learning rate that a run's settings plan."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final, final, get_args

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.reading.curves import Floats, Steps
from trimtab.doctor.reading.once import once

if TYPE_CHECKING:
    from trimtab.config import Budget, ScheduleConfig


_STEPS_KEPT: Final = 65_536
"""Steps of a schedule whose factors are not computed again: more than a curve has buckets, several times."""


@once
def planned_schedule(case: Case) -> ScheduleConfig | None:
    """The schedule in the settings; None where they have none, or one that this version does not know."""
    return None if case.setting("schedule.name") is None else _schedule(_settings(case))


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
def planned_factor(case: Case) -> Plan | None:
    """The part of the full rate at a step, counted from 1, as planned; None where that is not known."""
    schedule = planned_schedule(case)
    if schedule is None or case.planned_steps < 1:
        return None
    return _plan(_settings(case), planned_budget(case))


@final
class Plan:
    """The part of the full rate at each step, which a run that is judged again asks for the same steps."""

    def __init__(self, factor: Callable[[int], float]) -> None:
        self._factor, self._kept_factor = factor, lru_cache(maxsize=_STEPS_KEPT)(factor)
        self._known: tuple[Steps, Floats] = np.array([-1]), np.array([np.nan])
        """The steps that were asked for last, and their factors: one value, as other threads may ask, too. None yet."""

    def __call__(self, step: int) -> float:
        """At a step, counted from 1."""
        return self._kept_factor(step)

    def along(self, steps: Steps) -> Floats:
        """At many [N], which cannot be written; those that were asked for last are known."""
        known, factors = self._known
        num = min(len(steps), len(known))
        differing = np.flatnonzero(steps[:num] != known[:num])
        num = int(differing[0]) if len(differing) else num  # so many begin alike
        rest = steps[num:]
        at = np.minimum(known.searchsorted(rest), len(known) - 1)  # as of a curve whose buckets were joined by twos
        found: Floats = np.concatenate([factors[:num], factors[at]])
        new = known[at] != rest
        found[num:][new] = [self._factor(step) for step in rest[new].tolist()]
        found.flags.writeable = False
        if len(steps):
            self._known = steps.copy(), found
        return found


@once
def _settings(case: Case) -> str:
    """Those of the schedule in JSON, which tells a warm-up of 1 step from one of 1.0 of the run."""
    settings = {
        key.removeprefix("schedule."): value for key, value in case.config.items() if key.startswith("schedule.")
    }
    return json.dumps(settings, default=str)


@lru_cache(maxsize=8)
def _schedule(settings: str) -> ScheduleConfig | None:
    """What such settings say, which are those of the same run most often."""
    from pydantic import ValidationError  # the log of another trainer does not need it

    known: dict[str, Any] = json.loads(settings)
    kind = _kinds().get(str(known["name"]))
    try:
        return None if kind is None else kind.model_validate(known)
    except ValidationError:
        return None


@lru_cache(maxsize=8)
def _plan(settings: str, budget: Budget) -> Plan | None:
    """The part of the full rate at each step by such settings."""
    from trimtab.config import UnknownLengthError
    from trimtab.schedules import build_schedule

    schedule = _schedule(settings)
    try:
        built = None if schedule is None else build_schedule(schedule, budget)
    except UnknownLengthError:
        return None
    return None if built is None else Plan(lambda step: built.factor(step - 1))


@cache
def _kinds() -> dict[str, type[ScheduleConfig]]:
    """Name -> its schedule; a validator of all of them at once would take a moment to build."""
    from trimtab.config import ScheduleConfig

    union, _ = get_args(ScheduleConfig)
    return {kind.model_fields["name"].default: kind for kind in get_args(union)}
