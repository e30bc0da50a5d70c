"""What a schedule promises."""

from __future__ import annotations

import math

from trimtab.schedules import Schedule


def check_schedule(schedule: Schedule, total_steps: int, *, highest: float = 1.0) -> None:
    """It is a pure function: finite, between 0 and `highest`, not 0 at the first step, and defined beyond the last."""
    factors = [schedule.factor(step) for step in range(total_steps)]
    for step, factor in enumerate(factors):
        assert math.isfinite(factor), f"factor({step}) is {factor}"
        assert -1e-12 <= factor <= highest + 1e-12, f"factor({step}) is {factor}, outside [0, {highest}]"
    if total_steps > 1:
        assert factors[0] > 0.0, "factor(0) is 0: the first step would train nothing"
    assert [schedule.factor(step) for step in reversed(range(total_steps))] == factors[::-1], (
        "the order of calls matters"
    )
    assert math.isfinite(schedule.factor(10 * total_steps)), "it is not defined beyond the last step"
