"""The optimizers that train a run one after the other, and what builds each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from trimtab.config import Budget, Config
from trimtab.errors import ConfigError
from trimtab.model import Stages
from trimtab.optimizer import ForeignOptimizer, Optimizer, build_groups, build_optimizer, planned_groups
from trimtab.training.switch import lots_in_order

MakeOptimizer = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
"""Parameter groups in torch's form -> an optimizer over them."""


def optimizer_builders(
    config: Config,
    model: nn.Module,
    parameters: torch.dtype,
    make: MakeOptimizer | None,
    budget: Budget,
    around: Callable[[Optimizer], Optimizer],
) -> list[Callable[[], Optimizer]]:
    """What builds each of the run's optimizers over the weights as they then are; `make` stands in for them.

    Raises: ConfigError.
    """
    builders: list[Callable[[], Optimizer]]
    if make is None:
        for key, one in config.named_optimizers.items():
            planned_groups(one, model, key)  # what is wrong with a later one is said now
        builders = [partial(build_optimizer, one, model, parameters, key) for key, one in config.optimizer_stages]
    elif config.optimizer_switch is not None:
        raise ConfigError("optimizer_switch: it does not go with an optimizer that is given as a Python object")
    else:
        builders = [
            partial(lambda one: ForeignOptimizer(build_groups(one, model), make), one)
            for _, one in config.optimizer_stages
        ]
    builders = [lambda build=build: around(build()) for build in builders]  # type: ignore[misc]
    if not config.model.unfreeze:
        return builders
    stages = Stages(model, [pattern for _, pattern in lots_in_order(config, budget)])
    return [partial(stages.begin, number, builder) for number, builder in enumerate(builders)]
