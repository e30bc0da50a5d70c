"""decay-beside-penalty: weight decay and a penalty on the same weights.

Looks for: `penalties.l1` or `penalties.l2` beside `optimizer.weight_decay`.
Why: both pull weights to zero, so that neither strength says how strongly; the one hides the other's effect.
Evidence: `penalties.l1.strength`, `penalties.l2.strength`, `optimizer.weight_decay`.
Remedy: keep one: `optimizer.weight_decay=0` beside an L1 penalty that is to make weights zero.
False alarms: an elastic net, which is both on purpose (Zou and Hastie 2005).
Source: the project's rules of thumb.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import Config
from trimtab.doctor.lint.finding import LintFinding


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns of both at once."""
    penalties = {"l1": config.penalties.l1.strength, "l2": config.penalties.l2.strength}
    for key, optimizer in config.named_optimizers.items():
        for name, strength in penalties.items():
            if strength and optimizer.weight_decay:
                yield LintFinding(
                    "decay-beside-penalty",
                    "warning",
                    f"{key}.weight_decay",
                    f"a weight decay of {optimizer.weight_decay} beside penalties.{name} of {strength}",
                    "both pull the same weights to zero, so that neither strength says how strongly",
                    f"{key}.weight_decay=0",
                    "rules of thumb",
                )
