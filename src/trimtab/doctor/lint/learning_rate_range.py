"""learning-rate-range: a learning rate that AdamW is hardly ever trained with.

Looks for: AdamW or Adam above 1e-2 or below 1e-6.
Why: an update of AdamW moves each weight by about the learning rate: above 1e-2 that is a large part of a
    weight's usual size (0.02 at the start), below 1e-6 a run of usual length leaves the weights where they were.
    The cause is often a rate from SGD, or a sign lost from an exponent.
Evidence: `optimizer.learning_rate`, as applied after `optimizer.batch_scaling`, and that of `optimizer_switch.to`.
Remedy: 1e-4 for large models to 1e-3 for small ones, as the doctor says of a run of this size.
False alarms: parametrizations that scale rates per layer; models of a few thousand weights.
Source: Loshchilov and Hutter 2019, arXiv 1711.05101; the project's rules of thumb.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import AdamConfig, AdamW8bitConfig, AdamWConfig, Config, TransformerShape
from trimtab.doctor.lint.finding import LintFinding
from trimtab.doctor.reading.rates import usual_rate

_SOME_MILLIONS = 10_000_000
"""Parameters, before they are counted."""


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns of a rate outside 1e-6 to 1e-2."""
    for key, optimizer in config.named_optimizers.items():
        applied = config.full_rate_of(optimizer)
        if not isinstance(optimizer, AdamWConfig | AdamW8bitConfig | AdamConfig) or 1e-6 <= applied <= 1e-2:
            continue
        high = applied > 1e-2
        counts = facts.get("parameters", {})
        size = counts.get("non_embedding") or counts.get("total") or _SOME_MILLIONS
        rate = usual_rate(size, config.model.hidden_size if isinstance(config.model, TransformerShape) else None)
        yield LintFinding(
            "learning-rate-range",
            "warning",
            f"{key}.learning_rate",
            f"{applied:g} is {'above 0.01' if high else 'below 0.000001'}",
            "each update moves a weight by about so much, and weights begin at 0.02"
            if high
            else "each update moves a weight by about so much: the model would hardly change",
            f"{key}.learning_rate={rate / config.rate_scale_of(optimizer):.0e}".replace("e-0", "e-"),
            "Loshchilov and Hutter 2019, arXiv 1711.05101",
        )
