"""decay-on-norms: weight decay acts on norms or biases.

Looks for: `optimizer.decay.norms` or `optimizer.decay.biases` with a weight decay that is not 0.
Why: the scale of a norm is meant to lie about 1 and a bias where the data puts it; pulling them to 0 costs
    accuracy and regularizes nothing, as they are few.
Evidence: the two settings.
Remedy: leave both false.
False alarms: reproducing a recipe that decayed everything.
Source: He et al. 2019, arXiv 1812.01187, section 3.1; common practice of language models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from trimtab.config import Config
from trimtab.doctor.lint.finding import LintFinding


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns for norms and for biases, each on its own."""
    sites = (("norms", "the scales of norms"), ("biases", "biases"))
    for (key, optimizer), (name, what) in product(config.named_optimizers.items(), sites):
        if optimizer.weight_decay and getattr(optimizer.decay, name):
            yield LintFinding(
                "decay-on-norms",
                "warning",
                f"{key}.decay.{name}",
                f"weight decay of {optimizer.weight_decay} pulls {what} to 0",
                "they are few and not meant to be small: it costs accuracy and regularizes nothing",
                f"{key}.decay.{name}=false",
                "He et al. 2019, arXiv 1812.01187, section 3.1",
            )
