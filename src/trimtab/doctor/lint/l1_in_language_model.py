"""l1-in-language-model: an L1 penalty in a dense language model.

Looks for: `penalties.l1` on a decoder that predicts the next token.
Why: it makes weights zero one by one, in no pattern that a dense product could leave out: the model loses capacity and
    no time is saved. What is to be small is better pruned after training, or built with fewer heads and layers.
Evidence: `penalties.l1.strength`, `task.name`.
Remedy: `penalties.l1.strength=0`; weight decay against overfitting.
False alarms: a study of sparsity: lift it with `lint.allow`.
Source: the project's rules of thumb; Gale et al. 2019, arXiv 1902.09574 (how sparsity fares in transformers).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config
from trimtab.doctor.lint.finding import LintFinding


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Refuses it."""
    strength = config.penalties.l1.strength
    if strength and config.task.name in ("causal_lm", "masked_lm"):
        yield LintFinding(
            "l1-in-language-model",
            "refusal",
            "penalties.l1.strength",
            f"an L1 penalty of {strength} in a dense language model",
            "single weights become zero, which takes capacity and saves no time",
            "penalties.l1.strength=0",
            "rules of thumb",
        )
