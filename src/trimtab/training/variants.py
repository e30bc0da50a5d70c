"""Which weights a run has besides those that it trains, and with which it ends."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from trimtab.config import Config
from trimtab.evaluation import Weights, batch_norm_buffers
from trimtab.training.checkpoint.snapshot import OWN_AVERAGE
from trimtab.training.step import Step


def variants_of(config: Config, step: Step) -> dict[str, Weights]:
    """What evaluations judge: by name, '' for what the optimizer is judged by, a context with the weights in the model.

    Where the average alone is to be judged, the plain weights stand in for it until it has begun.
    """
    average = step.average

    def plain() -> AbstractContextManager[None]:
        return step.optimizer.evaluation_weights()  # of the optimizer that trains by then

    if average is None:
        return {"": plain}

    def averaged() -> AbstractContextManager[None] | None:
        return average.evaluation_weights() if average.has_begun else None

    def until_it_begins() -> AbstractContextManager[None] | None:
        return None if average.has_begun else plain()

    return {"": plain if "" in config.variants else until_it_begins, average.kind: averaged}


def hand_back(step: Step, selected: str, *, is_restored: bool) -> str:
    """Leave the model with the weights that are `selected`; what was restored from a checkpoint is that already.

    Gives which these are: `plain`, or the kind of an average.
    """
    model, optimizer, average = step.model, step.optimizer, step.average
    judged: dict[str, Tensor] = {}
    buffers: dict[str, Tensor] = {}
    is_averaged = average is not None and selected == average.kind and (is_restored or average.has_begun)
    if not is_restored and average is not None and is_averaged:
        with average.evaluation_weights():
            judged = {name: weight.clone() for name, weight in optimizer.storage.weights.items()}
            buffers = {name: buffer.clone() for name, buffer in batch_norm_buffers(model).items()}
    elif not is_restored and optimizer.averages:
        with optimizer.evaluation_weights():
            judged = {name: weight.clone() for name, weight in optimizer.storage.weights.items()}
    optimizer.storage.hand_back()
    with torch.no_grad():
        for name, weight in judged.items():
            optimizer.storage.weights[name].copy_(weight)
        for name, buffer in batch_norm_buffers(model).items():
            if name in buffers:
                buffer.copy_(buffers[name])
    return selected if is_averaged else OWN_AVERAGE if optimizer.averages else "plain"
