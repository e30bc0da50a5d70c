"""When the configuration lets another optimizer take over, and the learning rate before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trimtab.config import Budget, Config, steps_asked
from trimtab.errors import ConfigError
from trimtab.events import Adjust
from trimtab.schedules import build_schedule
from trimtab.training.progress import Progress


def scheduled_rate(config: Config, budget: Budget, progress: Progress) -> Callable[[int], float]:
    """Steps done to the next one's learning rate: the schedule's part of the full rate of the optimizer in use."""
    schedule, rates = build_schedule(config.schedule, budget), [one.learning_rate for one in config.optimizers]
    return lambda step: rates[progress.optimizer] * schedule.factor(step)


def planned_switch(config: Config, budget: Budget, progress: Progress) -> Callable[[int], Sequence[Adjust]]:
    """Step to what is decided at its boundary: once, after `optimizer_switch.at`, unless it was done before.

    Raises: ConfigError when that lies after the last step.
    """
    switch = config.optimizer_switch
    if switch is None or switch.at is None:
        return lambda step: ()
    at = steps_asked(switch.at, budget)
    if at >= budget.steps:
        raise ConfigError(
            f"optimizer_switch.at: it lies after the last step: {at:,} of {budget.steps:,}. Received: {switch.at!r}"
        )
    reason = f"{at:,} steps are done (optimizer_switch.at): {switch.to.name} takes over from {config.optimizer.name}"

    def decided(step: int) -> Sequence[Adjust]:
        return (Adjust(reason, "optimizer", 1.0),) if step == at and not progress.optimizer else ()

    return decided
