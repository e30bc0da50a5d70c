"""A step whose loss compares all of its texts with each other, in several micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trimtab.errors import ConfigError
from trimtab.model import Outside
from trimtab.objective.procedures import cached_gradients, joined
from trimtab.signals import Batch, ModelOutput, set_randomness

if TYPE_CHECKING:
    from trimtab.training.step import Step


def accumulate_cached(step: Step, batches: Sequence[Batch], number: int, *, passed: int | None = None) -> None:
    """What accumulating every one of `batches` of step `number` would leave, were the loss a sum over them.

    With `passed` only the first so many pass through the model, and the others have vectors of zeros: what a step takes
    of memory, without its time.
    Raises: ConfigError for a model that gives no features.
    """
    foreign = isinstance(step.model, Outside)
    step.timer.mark("host_to_device")
    on_device = [batch.to(step.device) for batch in batches]
    whole = joined(on_device)
    step.set(share=1.0 / len(batches))
    kept: list[ModelOutput] = []

    def forward(index: int) -> ModelOutput:
        if passed is not None and index >= passed:
            features = torch.zeros_like(kept[0].features, requires_grad=torch.is_grad_enabled())
            return replace(kept[0], features=features)
        set_randomness(step.seed, number, index, "model", step.device, foreign=foreign)
        step.timer.mark("forward")
        with step.precision.autocast():
            output = step.model(**step.task.inputs(on_device[index]))
        if not isinstance(output, ModelOutput):
            raise ConfigError(
                "training.accumulation: the model gives no features, from which the gradient of a loss over the whole "
                "batch could be passed on",
                hint="set training.accumulation=1",
            )
        if torch.is_grad_enabled():
            step.take_signals(output.signals)
        elif passed is not None:
            kept[:] = [output]
        return output

    def judge(output: ModelOutput) -> Tensor:
        with step.precision.autocast():
            terms = step.task.terms(output, whole)
        return step.scaled(step.total_of(terms))

    def backward(tensor: Tensor, gradient: Tensor | None) -> None:
        step.timer.mark("backward")
        step.optimizer.storage.expect()
        torch.autograd.backward(tensor, gradient)
        step.optimizer.storage.collect()

    cached_gradients(len(batches), forward, judge, backward)
