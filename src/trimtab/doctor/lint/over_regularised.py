"""over-regularised: dropout, label smoothing and weight decay, all of them strong.

Looks for: dropout of 0.2 or more, label smoothing of 0.1 or more and weight decay of 0.1 or more together.
Why: each holds the model back in its own way; together they keep it from fitting what it could.
Evidence: `model.dropout`, `objective.label_smoothing`, `optimizer.weight_decay`.
Remedy: halve one at a time, beginning with label smoothing, which language models seldom need.
False alarms: small data seen many times, where all three may be wanted.
Source: the project's rules of thumb.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import BinaryCrossEntropyConfig, Config, CrossEntropyConfig, OutsideModel
from trimtab.doctor.lint.finding import LintFinding


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns when three strong regularizers come together."""
    objective = config.objective
    if isinstance(config.model, OutsideModel) or not isinstance(
        objective, CrossEntropyConfig | BinaryCrossEntropyConfig
    ):
        return
    dropout = max(config.model.dropout.rates.values())
    smoothing, decay = objective.label_smoothing, max(one.weight_decay for one in config.optimizers)
    if dropout >= 0.2 and smoothing >= 0.1 and decay >= 0.1:
        yield LintFinding(
            "over-regularised",
            "warning",
            "objective.label_smoothing",
            f"dropout {dropout}, label smoothing {smoothing} and weight decay {decay} together",
            "each holds the model back, and together they may keep it from fitting",
            "objective.label_smoothing=0.0",
            "rules of thumb",
        )
