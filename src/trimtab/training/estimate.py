"""An estimate of the curvature, for optimizers that ask for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from trimtab.model import Outside
from trimtab.objective import drawn_loss
from trimtab.optimizer import Curvature
from trimtab.signals import Batch, set_randomness

if TYPE_CHECKING:
    from trimtab.training.step import Step


def estimate(step: Step, curvature: Curvature, batches: Sequence[Batch], number: int) -> None:
    """One more pass over the micro-batches, whose targets are drawn from the model, under randomness of its own.

    It leaves no trace in the running statistics of BatchNorm.
    """
    storage, scaler, foreign = step.optimizer.storage, step.precision.scaler, isinstance(step.model, Outside)
    storage.zero_gradients(in_parts=len(batches) > 1)
    with step.passes.apart():
        for index, batch in enumerate(batches):
            set_randomness(step.seed, number, index, "curvature", step.device, foreign=foreign)
            batch = batch.to(step.device)
            with step.precision.autocast():
                loss = drawn_loss(step.model(**step.task.inputs(batch)), batch.targets)
            loss = loss * step.settings["inverse_targets"]
            storage.expect()
            torch.autograd.backward(loss if scaler is None else loss * scaler.scale)
            storage.collect()
    with torch.no_grad():
        unscale = torch.ones((), device=step.device) if scaler is None else 1.0 / scaler.scale
        step.is_keeping_estimate = True
        curvature.take(unscale, 1.0 / step.settings["inverse_targets"])
        step.is_keeping_estimate = False
