"""batch-norm-with-accumulation: a batch in parts, of which BatchNorm sees one at a time.

Looks for: a model with BatchNorm, and steps of several micro-batches.
Why: accumulation gives the gradient of the whole batch for every layer but this one: each micro-batch is normalized by
    its own mean and variance, and moves the running statistics once, by `model.batch_norm.momentum`. So the model that
    is trained depends on how a batch is divided, and the running statistics follow the weights more closely than one
    update a step would let them.
Evidence: `model.batch_norm`, or the fact `batch_norm` of a model from outside; `training.accumulation`, or what divides
    the batch.
Remedy: the batch in one part, where memory holds it; small models with BatchNorm seldom need more.
False alarms: micro-batches that are large enough by themselves.
Source: Hoffer et al. 2017, arXiv 1705.08741, section 4 (where the parts are meant: ghost batches).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config
from trimtab.doctor.lint.finding import LintFinding, has_batch_norm


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Tells of BatchNorm in steps of several micro-batches."""
    if not has_batch_norm(config, facts) or config.split is None or not config.has_parts:
        return
    split, whole = config.split, config.sequences_per_step
    grows = config.training.accumulation_schedule is not None
    one = f"training={{micro_batch_size: {whole}, accumulation: 1}}"
    yield LintFinding(
        "batch-norm-with-accumulation",
        "info",
        "training.accumulation",
        f"BatchNorm normalizes each micro-batch of {split.micro_batch_size} sequences by itself, whatever the step's "
        "batch is",
        "accumulation makes the batch of the gradient larger, not that of BatchNorm, and each micro-batch moves the "
        "running statistics once",
        None if grows else one if config.training.batch_size is None else f"training.micro_batch_size={whole}",
        "Hoffer et al. 2017, arXiv 1705.08741, section 4",
    )
