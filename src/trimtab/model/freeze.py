"""Parameters that are not trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar, final

from torch import nn

from trimtab.errors import ConfigError

T = TypeVar("T")


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


@final
class Stages:
    """Frozen parameters of `model` that are trained after all, one lot after the other.

    Source: gradual unfreezing, Howard and Ruder 2018, arXiv 1801.06146, section 3.3.
    """

    def __init__(self, model: nn.Module, patterns: Sequence[str]) -> None:
        """A lot for each pattern. Raises: ConfigError for one that fits no parameter that would be frozen still."""
        self._frozen = {name: one for name, one in model.named_parameters() if not one.requires_grad}
        self._lots: list[list[str]] = []
        left = list(self._frozen)
        for pattern in patterns:
            lot = [name for name in left if fnmatchcase(name, pattern)]
            if not lot:
                raise ConfigError(
                    f"model.unfreeze: no parameter of such a name is frozen still. Received: {pattern!r}",
                    hint=f"those begin with {', '.join(left[:3])}" if left else None,
                )
            self._lots.append(lot)
            left = [name for name in left if name not in lot]

    def begin(self, number: int, build: Callable[[], T]) -> T:
        """What `build` gives while the first `number` lots take gradients, and the others none."""
        for index, lot in enumerate(self._lots):
            for name in lot:
                self._frozen[name].requires_grad_(index < number)
        return build()
