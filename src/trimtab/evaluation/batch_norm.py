"""The statistics of BatchNorm, made anew for weights that no training step has seen."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trimtab.data import Sequences
from trimtab.model import evaluating
from trimtab.signals import Task


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """The modules of `model` that keep statistics of batches, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


def batch_norm_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Running mean and variance of each, and the count of batches, under their names in the model's state."""
    return {
        f"{name}.{kind}" if name else kind: buffer
        for name, module in batch_norms(model).items()
        for kind, buffer in module.named_buffers(recurse=False)
    }


def renew_batch_norm(
    model: nn.Module,
    task: Task,
    sequences: Sequences,
    *,
    batches: int,
    batch_size: int,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Means over `batches` batches of the statistics of each, for the weights in `model`; others than these stay.

    Each batch goes through all of `sequences` at even distances, always the same, so that the result is a pure
    function of the weights. All else is in eval mode: the statistics are those that an evaluation meets, without
    dropout, and nothing is drawn. `progress` is told the part that is begun. Source: as
    torch.optim.swa_utils.update_bn, which leaves dropout on.
    """
    found = batch_norms(model)
    if not found:
        return
    size = min(batch_size, len(sequences))
    num_batches = max(1, min(batches, len(sequences) // size))
    places = np.arange(num_batches * size) * len(sequences) // (num_batches * size)
    momenta = {name: module.momentum for name, module in found.items()}
    with evaluating(model):
        try:
            for module in found.values():
                module.reset_running_stats()
                module.momentum = None  # the mean over all batches
                module.train()
            for first in range(num_batches):
                if progress is not None:
                    progress(first / num_batches)
                batch = sequences.batch(places[first::num_batches]).to(device)
                with autocast():
                    model(**task.inputs(batch))
        finally:
            for name, module in found.items():
                module.momentum = momenta[name]
