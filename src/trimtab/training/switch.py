"""When the configuration lets another optimizer take over, or more parameters be trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trimtab.config import Budget, Config, steps_asked
from trimtab.errors import ConfigError
from trimtab.events import Adjust
from trimtab.training.progress import Progress


def planned_changes(config: Config, budget: Budget, progress: Progress) -> Callable[[int], Sequence[Adjust]]:
    """Step to what is decided at its boundary, by `optimizer_switch.at` or `model.unfreeze`.

    Raises: ConfigError for what lies after the last step, or entries of `model.unfreeze` that are not in order.
    """
    if config.model.unfreeze:
        return _planned_unfreezing(config, budget, progress)
    return planned_switch(config, budget, progress)


def _planned_unfreezing(config: Config, budget: Budget, progress: Progress) -> Callable[[int], Sequence[Adjust]]:
    stretches = [one.at for one in config.model.unfreeze]
    steps = [steps_asked(at, budget) for at in stretches]
    if steps != sorted(set(steps)) or steps[-1] >= budget.steps:
        raise ConfigError(
            "model.unfreeze: the entries must follow each other in time, and the last must come before the end: steps "
            f"{', '.join(map(str, steps))} of {budget.steps:,}. Received: {', '.join(map(repr, stretches))}"
        )

    def decided(step: int) -> Sequence[Adjust]:
        due = sum(at <= step for at in steps)
        if due <= progress.optimizer:
            return ()
        names = ", ".join(config.model.unfreeze[due - 1].parameters)
        return (Adjust(f"{steps[due - 1]:,} steps are done (model.unfreeze): {names} is trained", "unfreeze", due),)

    return decided


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
