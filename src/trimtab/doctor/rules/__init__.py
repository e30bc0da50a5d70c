"""What a run's record shows: one rule a file, whose docstring is its page."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Finding, Withheld
from trimtab.doctor.rules import (
    divergence,
    evaluation_bound,
    frozen_parameters,
    input_bound,
    learning_rate_too_high,
    learning_rate_too_low,
    loss_scale_collapse,
    loss_spike,
    nan_loss,
    noisy_loss,
    overfitting,
    plateau,
    stopped_too_early,
    underfitting,
    validation_regression,
)

__all__ = ["RULES", "Rule"]

Rule = Callable[[Case], Iterator[Finding | Withheld]]
"""What a rule has to say of a case: pure, and quick."""

RULES: dict[str, Rule] = {
    "nan-loss": nan_loss.check,
    "loss-scale-collapse": loss_scale_collapse.check,
    "divergence": divergence.check,
    "loss-spike": loss_spike.check,
    "learning-rate-too-high": learning_rate_too_high.check,
    "learning-rate-too-low": learning_rate_too_low.check,
    "frozen-parameters": frozen_parameters.check,
    "noisy-loss": noisy_loss.check,
    "overfitting": overfitting.check,
    "underfitting": underfitting.check,
    "plateau": plateau.check,
    "stopped-too-early": stopped_too_early.check,
    "validation-regression": validation_regression.check,
    "input-bound": input_bound.check,
    "evaluation-bound": evaluation_bound.check,
}
"""All rules by the code that they look for."""
