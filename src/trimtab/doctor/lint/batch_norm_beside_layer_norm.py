"""batch-norm-beside-layer-norm: the same activations are normalized by batches and by samples.

Looks for: a LayerNorm or RMSNorm whose input a BatchNorm gave, or the other way round, with nothing between.
Why: the second undoes the first: what BatchNorm knows of a feature over the batch, the next norm rescales by each
    sample's own mean and variance, or the batch's statistics are taken of what is normalized already. It costs twice,
    keeps the noise of BatchNorm, and needs its running averages for nothing.
Evidence: the fact `first_batch.normalized_twice`: what the norms are given as the first batch passes, in a module from
    outside; our own models have one kind of norm.
Remedy: one of the two: LayerNorm or RMSNorm for texts, BatchNorm for pictures in large batches.
False alarms: none known; a residual sum or a layer between them is not meant.
Source: rules of thumb (never both on the same activations).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config
from trimtab.doctor.lint.finding import LintFinding


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Refuses norms of two kinds in a row."""
    names = (facts.get("first_batch") or {}).get("normalized_twice")
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield LintFinding(
            "batch-norm-beside-layer-norm",
            "refusal",
            "model.name",
            f"{names[0]}{more} normalizes what another kind of norm gave",
            "of a BatchNorm and a LayerNorm on the same activations the second undoes the first",
            None,
            "rules of thumb",
        )
