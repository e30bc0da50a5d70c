"""validation-in-training: texts of the validation set are in the training set, equal or nearly.

Looks for: at least one in a hundred validation documents that the training set has, too; equal, or with most runs of 5
    words in common.
Why: the validation loss then measures what was learnt by heart. It falls where the model does not get better, so that
    the best checkpoint and the moment to stop are chosen wrongly.
Evidence: the fact `duplicates` (`leaked`, of equal and of nearly equal texts); without it nothing is said.
Remedy: leave them out of the training set, or take validation text from elsewhere.
False alarms: short texts that are meant to be frequent, such as greetings; sets of templates, where all texts are
    nearly equal and what is asked lies in the difference.
Source: Lee et al. 2022, arXiv 2107.06499, section 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config
from trimtab.doctor.lint.finding import LintFinding

_FEW = 0.01


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns of one in a hundred."""
    duplicates = facts.get("duplicates")
    documents = facts.get("validation", {}).get("documents", 0)
    if not duplicates or not documents:
        return
    chosen = config.data.duplicates
    counts = {
        kind: duplicates[kind]["leaked"]
        for kind, done in (("exact", chosen.exact), ("near", chosen.near))
        if kind in duplicates and not (done == "drop" or chosen.near == "drop")
    }
    leaked = sum(counts.values())
    if leaked > 0 and leaked >= _FEW * documents:
        kind = "near" if counts.get("near") else "exact"
        words = {"exact": "equal", "near": "nearly equal"}
        told = ", ".join(f"{number:,} {words[kind]}" for kind, number in counts.items() if number)
        yield LintFinding(
            "validation-in-training",
            "warning",
            f"data.duplicates.{kind}",
            f"{leaked / documents:.1%} of the validation texts are in the training set, too ({told})",
            "the validation loss then measures what was learnt by heart, and chooses checkpoints by it",
            f"data.duplicates.{kind}=drop",
            "Lee et al. 2022, arXiv 2107.06499, section 5",
        )
