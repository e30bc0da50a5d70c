"""Once over the micro-batches of a step: their gradients, one after the other or all together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trimtab.objective.procedures import cached_gradients
from trimtab.signals import Batch, ModelOutput, PartsProbe

if TYPE_CHECKING:
    from trimtab.training.step import Step


def gather(step: Step, batches: Sequence[Batch], number: int, looks: PartsProbe | None) -> None:
    """Leave the gradient of step `number`, and its sums; `looks` at the gradient after each micro-batch."""
    if step.caches and len(batches) > 1:
        gather_together(step, batches, number)
        return
    for index, batch in enumerate(batches):
        step.passes.at(number, index)
        step.accumulate(batch, 1.0 / len(batches))
        if looks is not None:
            step.timer.mark("probe")
            looks.part(step.optimizer.storage.gradients, first=index == 0)


def gather_together(step: Step, batches: Sequence[Batch], number: int, passed: int | None = None) -> None:
    """Leave what an objective over all of `batches` gives; `passed` as of `cached_gradients`."""
    step.timer.mark("host_to_device")
    on_device = [batch.to(step.device) for batch in batches]
    step.set(share=1.0 / len(batches))

    def each(output: ModelOutput) -> None:
        step.take_signals(output.signals)

    found = cached_gradients(step.passes, on_device, lambda index: step.passes.at(number, index), each, passed)
    step.take(found)
