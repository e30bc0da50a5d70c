"""Parameters that are not trained."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from trimtab.errors import ConfigError


def freeze(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Let the parameters that fit one of `patterns`, as of file names, take no gradient; gives their names.

    A tied parameter goes by its first name. Raises: ConfigError for a pattern that fits none, or nothing left.
    """
    parameters = dict(model.named_parameters())
    frozen: dict[str, None] = {}
    for pattern in patterns:
        fitting = [name for name in parameters if fnmatchcase(name, pattern)]
        if not fitting:
            raise ConfigError(
                f"model.freeze: no parameter has such a name. Received: {pattern!r}",
                hint=f"the model's begin with {', '.join(list(parameters)[:3])}",
            )
        frozen |= dict.fromkeys(fitting)
    for name in frozen:
        parameters[name].requires_grad_(False)
    if frozen and not any(parameter.requires_grad for parameter in parameters.values()):
        raise ConfigError("model.freeze: all parameters are frozen, so that there is nothing to train")
    return list(frozen)
