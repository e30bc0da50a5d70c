"""batch-norm-small-batch: BatchNorm over few samples.

Looks for: a model with BatchNorm and micro-batches of fewer than 32 sequences.
Why: mean and variance are estimated from the micro-batch. From few samples they are noise, which training meets and
    evaluation does not: a ResNet-50 for pictures errs in 23.6 % with 32 of them, in 34.7 % with 2.
Evidence: `model.batch_norm`, or the fact `batch_norm` of a model from outside; `training.micro_batch_size`. Where that
    is found by trying nothing is said.
Remedy: larger micro-batches, or a norm that knows no batch.
False alarms: norms over many positions of each sequence (`cnn`) have more values to estimate from; those of one text
    are alike, so that they count for less than they are.
Source: Wu and He 2018, arXiv 1803.08494, figure 1 and table 2; Ioffe 2017, arXiv 1702.03275; rules of thumb (batches
    of at least 32).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config
from trimtab.doctor.lint.finding import LintFinding, has_batch_norm

_FEW = 32


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns of micro-batches below 32 with BatchNorm."""
    if not has_batch_norm(config, facts) or config.split is None or config.split.micro_batch_size >= _FEW:
        return
    asked = config.training.batch_size
    fits = asked is None or config.sequences_per_step % _FEW == 0
    yield LintFinding(
        "batch-norm-small-batch",
        "warning",
        "training.micro_batch_size",
        f"BatchNorm estimates mean and variance from {config.split.micro_batch_size} sequences",
        f"below {_FEW} these are noise that evaluation does not meet",
        f"training.micro_batch_size={_FEW}" if fits else None,
        "Wu and He 2018, arXiv 1803.08494, figure 1",
    )
