"""epochs-over-data: the run goes over its data more than four times.

Looks for: more than 4 epochs in the planned steps.
Why: up to about 4 epochs, repeated text teaches nearly as much as new text; beyond, each pass teaches less, and
    the model begins to learn the text by heart.
Evidence: the facts `tokens_per_epoch` and `planned_tokens` (by the configuration if not given); without the first
    nothing is said.
Remedy: more text, fewer steps, or more regularization with early stopping.
False alarms: runs that are meant to overfit; fine-tuning on a few examples with early stopping.
    Rows with targets are left alone: the rule is about text.
Source: Muennighoff et al. 2023, arXiv 2305.16264, section 6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config, RowTask
from trimtab.doctor.lint.finding import LintFinding

_AS_GOOD_AS_NEW = 4


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns of more than four epochs."""
    steps = config.training.steps
    planned_tokens = facts.get("planned_tokens", config.tokens_per_step * steps)
    epochs = planned_tokens / facts["tokens_per_epoch"] if facts.get("tokens_per_epoch") else 0.0
    if epochs > _AS_GOOD_AS_NEW and not isinstance(config.task, RowTask):
        yield LintFinding(
            "epochs-over-data",
            "warning",
            "training.steps",
            f"{epochs:.1f} epochs: {planned_tokens:,} tokens planned, {facts['tokens_per_epoch']:,} in the data",
            "beyond about 4 epochs, repeated text teaches ever less and is learnt by heart",
            f"training.steps={max(1, int(steps * _AS_GOOD_AS_NEW / epochs))}",
            "Muennighoff et al. 2023, arXiv 2305.16264, section 6",
        )
