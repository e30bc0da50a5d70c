"""batch-norm-in-sequence-model: BatchNorm in a transformer, or in a model that judges each position.

Looks for: BatchNorm in a module from outside: beside attention, or in one that is trained to predict tokens.
Why: over positions of padded and packed texts of all lengths the statistics of a batch swing from step to step, so that
    those of evaluation are others: transformers of language with BatchNorm train worse than with LayerNorm. Where the
    next token is predicted, mean and variance of a batch hold the positions that follow, too, which is to know
    something of the answer in training alone.
Evidence: the fact `batch_norm`: how many modules, and whether there is attention; without it nothing is said.
Remedy: LayerNorm or RMSNorm.
False alarms: convolutions over pictures or sound before a transformer: lift it with `lint.allow`.
Source: Shen et al. 2020, arXiv 2003.07845, sections 1 and 3; rules of thumb (never BatchNorm in transformers).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config
from trimtab.doctor.lint.finding import LintFinding

_OF_POSITIONS = ("causal_lm", "masked_lm", "seq2seq", "token_classification")


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Refuses BatchNorm beside attention, and warns of it where each position is judged."""
    found = facts.get("batch_norm")
    if found is None or not (found["beside_attention"] or config.task.name in _OF_POSITIONS):
        return
    causal = config.task.name in ("causal_lm", "seq2seq")
    yield LintFinding(
        "batch-norm-in-sequence-model",
        "refusal" if found["beside_attention"] else "warning",
        "model.name",
        f"the model has {found['layers']} BatchNorm layers"
        + (" beside attention" if found["beside_attention"] else f", and task {config.task.name} judges each position"),
        "statistics over texts of all lengths swing from batch to batch"
        + (", and hold the positions that follow the one that is predicted" if causal else ""),
        None,
        "Shen et al. 2020, arXiv 2003.07845",
    )
