"""high-dropout-small-model: dropout takes capacity that a small model lacks.

Looks for: dropout above 0.3 at any site in a model of fewer than 5 million parameters.
Why: dropout trains a thinned model; a small one then underfits before it can overfit.
Evidence: the rates in `model.dropout` and the fact `parameters`; without the fact nothing is said.
Remedy: dropout of 0.1 or none, more weight decay, or stopping early. A convolution shares its few weights over all
    positions and needs little dropout; its BatchNorm regularizes, too.
False alarms: very little data seen many times, where 0.3 is taught (so the boundary lies above it), and 0.5 on what the
    head of a CNN or an old MLP reads (Kim 2014).
Source: Srivastava et al. 2014, section 7.3; the project's rules of thumb.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.config import CnnConfig, Config, NetworkShape, TransformerShape
from trimtab.doctor.lint.finding import LintFinding

_SMALL_PARAMETERS = 5_000_000
_HIGH = 0.3


def check(config: Config, facts: Mapping[str, Any]) -> Iterator[LintFinding]:
    """Warns of high dropout in a small model, at its highest site."""
    model = config.model
    if not isinstance(model, TransformerShape | NetworkShape) or "parameters" not in facts:
        return
    parameters = facts["parameters"]["total"]
    rates: dict[str, float] = model.dropout.rates
    site = max(rates, key=lambda name: rates[name])
    if parameters < _SMALL_PARAMETERS and rates[site] > _HIGH:
        yield LintFinding(
            "high-dropout-small-model",
            "warning",
            f"model.dropout.{site}",
            f"dropout of {rates[site]} in a model of {parameters:,} parameters",
            "convolutions share few weights, and underfit before they overfit"
            if isinstance(model, CnnConfig)
            else "a small model needs all of its capacity, and underfits before it overfits",
            f"model.dropout.{site}=0.1",
            "Srivastava et al. 2014, section 7.3",
        )
