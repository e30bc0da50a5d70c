"""When the configuration lets another optimizer take over, or more parameters be trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trimtab.config import Budget, Config, steps_asked
from trimtab.errors import ConfigError
from trimtab.events import Adjust
from trimtab.training.progress import Progress


def planned_changes(config: Config, budget: Budget, progress: Progress) -> Callable[[int], Sequence[Adjust]]:
    """Step to what is decided at its boundary, by `optimizer_switch.at` or `model.unfreeze`.

    Raises: ConfigError for what lies after the last step.
    """
    if config.model.unfreeze:
        return _planned_unfreezing(config, budget, progress)
    return planned_switch(config, budget, progress)


def lots_in_order(config: Config, budget: Budget) -> list[tuple[int, str]]:
    """The patterns of `model.unfreeze`, each after the number of steps after which it begins to be trained.

    Raises: ConfigError for one after the last step.
    """
    unfreeze = config.model.unfreeze
    for pattern, at in unfreeze.items():
        if steps_asked(at, budget) >= budget.steps:
            raise ConfigError(
                f"model.unfreeze: {pattern} would begin after the last step: {steps_asked(at, budget):,} of "
                f"{budget.steps:,}. Received: {at!r}"
            )
    return sorted(((steps_asked(at, budget), pattern) for pattern, at in unfreeze.items()), key=lambda lot: lot[0])


def _planned_unfreezing(config: Config, budget: Budget, progress: Progress) -> Callable[[int], Sequence[Adjust]]:
    lots = lots_in_order(config, budget)

    def decided(step: int) -> Sequence[Adjust]:
        due = sum(at <= step for at, _ in lots)
        if due <= progress.optimizer:
            return ()
        names = ", ".join(pattern for _, pattern in lots[progress.optimizer : due])
        return (Adjust(f"{lots[due - 1][0]:,} steps are done (model.unfreeze): {names} is trained", "unfreeze", due),)

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
