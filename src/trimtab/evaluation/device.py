"""Where a model is judged: where it is."""

from __future__ import annotations

import torch
from torch import nn

from trimtab.errors import UsageError


def device_of(model: nn.Module, asked: torch.device | str | None = None) -> torch.device:
    """The device of `model`'s parameters; of a module without any the one that is `asked` for, or the processor.

    Raises: UsageError for a model that is elsewhere than `asked`, or a name that torch does not know.
    """
    first = next(model.parameters(), None)
    try:
        wanted = None if asked is None else torch.device(asked)
    except RuntimeError as error:
        raise UsageError(f"device must be the name of one, as cpu or cuda:0. Received: {asked!r}") from error
    if first is None:
        return wanted or torch.device("cpu")
    there = first.device
    if wanted is not None and (wanted.type != there.type or wanted.index not in (None, there.index)):
        raise UsageError(f"device is {wanted}, and the model is on {there}", hint=f'model.to("{wanted}") moves it')
    return there
