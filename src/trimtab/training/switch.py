"""When the configuration lets another optimizer take over."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trimtab.config import Budget, Config, steps_asked
from trimtab.errors import ConfigError
from trimtab.events import Adjust
from trimtab.training.progress import Progress


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
        return (Adjust(reason, "optimizer", 1.0),) if step >= at and not progress.optimizer else ()

    return decided
