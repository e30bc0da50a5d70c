"""batch-norm-with-dropout: dropout before BatchNorm.

Looks for: dropout whose output a BatchNorm reads: of embeddings, and of a layer that another one follows.
Why: dropout raises the variance of what it leaves in training and not in evaluation, so that the running variance,
    taken in training, is too large for what evaluation gives; both are noise besides. Dropout after the last norm, on
    what the head reads, does no such harm.
Evidence: `model.batch_norm`, the rates in `model.dropout`, `model.num_layers`.
Remedy: dropout on what the head reads alone, or weight decay.
False alarms: low rates, of which the shift is small.
Source: Li et al. 2019, arXiv 1801.05134 (variance shift); rules of thumb.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config, MlpConfig, NetworkShape
from trimtab.doctor.lint.finding import LintFinding


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns of each site whose output is normalized by batches."""
    model = config.model
    if not isinstance(model, NetworkShape) or model.batch_norm is None:
        return
    before = ["embedding"] + (["hidden"] if isinstance(model, MlpConfig) and model.num_layers > 1 else [])
    for site in before:
        if rate := model.dropout.rates[site]:
            yield LintFinding(
                "batch-norm-with-dropout",
                "warning",
                f"model.dropout.{site}",
                f"dropout of {rate} before BatchNorm",
                "the variance that BatchNorm keeps is that of training, and evaluation, without dropout, has another",
                f"model.dropout.{site}=0.0",
                "Li et al. 2019, arXiv 1801.05134",
            )
