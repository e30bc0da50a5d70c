"""batch-norm-few-for-average: statistics for averaged weights from few samples.

Looks for: averaged weights of a model with BatchNorm, whose statistics are made anew from fewer sequences than the
    running ones remember: micro-batches times (2 - m) / m with a momentum of m, 19 micro-batches at 0.1.
Why: averaged weights need statistics of their own, as no training step has seen them. From few samples these are
    noisier than those of the weights that are trained, and the average looks worse than it is.
Evidence: `averaging.batch_norm_batches`, the batch of an evaluation, `model.batch_norm.momentum` (0.1 in a model from
    outside, whose fact `batch_norm` tells of the norm), `training.micro_batch_size`.
Remedy: more `averaging.batch_norm_batches`; they cost a forward pass each, at every evaluation of the average.
False alarms: training sets smaller than that, which are gone through once.
Source: Izmailov et al. 2018, arXiv 1803.05407, section 3.2 (statistics made anew); the number: own, the samples that
    count in an exponential mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config, NetworkShape, NoAveraging
from trimtab.doctor.lint.finding import LintFinding, has_batch_norm


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Tells of statistics made from fewer sequences than the running ones remember."""
    averaging, model = config.averaging, config.model
    if isinstance(averaging, NoAveraging) or not has_batch_norm(config, facts) or config.split is None:
        return
    norm = model.batch_norm if isinstance(model, NetworkShape) else None
    momentum = 0.1 if norm is None else norm.momentum
    at_once = config.evaluation.batch_size or config.evaluation_batch_size
    remembered = config.split.micro_batch_size * (2.0 - momentum) / momentum
    if averaging.batch_norm_batches * at_once >= remembered:
        return
    yield LintFinding(
        "batch-norm-few-for-average",
        "info",
        "averaging.batch_norm_batches",
        f"the statistics of averaged weights are made of {averaging.batch_norm_batches * at_once} sequences",
        f"those of the weights that are trained remember about {remembered:.0f}, so that the average looks worse than "
        "it is",
        f"averaging.batch_norm_batches={math.ceil(remembered / at_once)}",
        "Izmailov et al. 2018, arXiv 1803.05407, section 3.2",
    )
