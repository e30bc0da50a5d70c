"""The maxima of inputs and gradients before the first step in fp8: without them its gradients would vanish."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trimtab.model import uncompiled
from trimtab.model.fp8 import DelayedScaling
from trimtab.signals import Batch, set_randomness

if TYPE_CHECKING:
    from trimtab.training.step import Step

_PARTS: Final = 8
"""Of the micro-batch one is computed: as written, it takes more memory than compiled."""


def calibrate(step: Step, scaling: DelayedScaling, batch: Batch, number: int) -> None:
    """One pass over the first rows of `batch` with the weights as they are, for step `number`, and nothing else."""
    rows = max(1, batch.tokens_BT.shape[0] // _PARTS)
    step.begin()
    set_randomness(step.seed, number, 0, "model", step.device)
    step.set(share=1.0)
    with scaling.measuring(), uncompiled():
        step.accumulate_program(batch.each(lambda tensor: tensor[:rows]).to(step.device))
    scaling.update(step.holds)
    scaling.note_whether_measured()  # where nothing was finite, the next step tries again
