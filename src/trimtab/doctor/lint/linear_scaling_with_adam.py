"""linear-scaling-with-adam: the learning rate grows faster with the batch than Adam bears.

Looks for: `optimizer.batch_scaling.name=linear` with an optimizer that divides by the root of averaged squares, at a
    batch of at least twice the reference, or at most half of it.
Why: averaging over k times as many samples lowers the noise of a gradient by the root of k. SGD's step is in proportion
    to the gradient. Adam's is not: it divides the noise out, so that the rate that keeps its path goes with the root
    of k.
Evidence: each optimizer of the run, and the batch over `optimizer.batch_scaling.reference_batch`.
Remedy: `optimizer.batch_scaling.name=square_root`.
False alarms: batches so far below the critical size that any rule holds; recipes that were measured so.
Source: Malladi et al. 2022, arXiv 2205.10287, section 4; Goyal et al. 2017, arXiv 1706.02677, for SGD.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from trimtab.config import Config, LinearScaling
from trimtab.doctor.lint.finding import LintFinding

_ADAPTIVE: Final = ("adamw", "adamw_8bit", "adam", "galore", "adafactor", "lamb", "schedule_free_adamw", "soap")


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns when both rules differ by at least the root of 2."""
    for key, optimizer in config.named_optimizers.items():
        scaling, scale = optimizer.batch_scaling, config.rate_scale_of(optimizer)
        if not isinstance(scaling, LinearScaling) or optimizer.name not in _ADAPTIVE or 0.5 < scale < 2.0:
            continue
        yield LintFinding(
            "linear-scaling-with-adam",
            "warning",
            f"{key}.batch_scaling.name",
            f"{optimizer.name} gets {scale:.3g} times the rate that is set, for a batch of "
            f"{config.sequences_per_step} sequences over {scaling.reference_batch}",
            "Adam divides by the size of the gradients, so that its rate goes with the root of the batch",
            f"{key}.batch_scaling={{name: square_root, reference_batch: {scaling.reference_batch}}}",
            "Malladi et al. 2022, arXiv 2205.10287, section 4",
        )
