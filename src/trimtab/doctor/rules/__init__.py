"""What a run's record shows: one rule a file, whose docstring is its page."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Finding, Withheld
from trimtab.doctor.rules import (
    accumulation_not_normalised,
    bad_initialization,
    dead_units,
    decayed_too_early,
    divergence,
    evaluation_bound,
    exploding_gradients,
    frozen_parameters,
    gradients_not_cleared,
    input_bound,
    learning_rate_too_high,
    learning_rate_too_low,
    loss_scale_collapse,
    loss_spike,
    memory_leak,
    missing_warmup,
    nan_loss,
    noisy_loss,
    over_regularised,
    overfitting,
    plateau,
    resume_discontinuity,
    schedule_mismatch,
    stopped_too_early,
    thread_oversubscription,
    throughput_decay,
    underfitting,
    validation_regression,
    vanishing_gradients,
)

__all__ = ["RULES", "Rule"]

Rule = Callable[[Case], Iterator[Finding | Withheld]]
"""What a rule has to say of a case: pure, and quick."""

RULES: dict[str, Rule] = {
    "nan-loss": nan_loss.check,
    "loss-scale-collapse": loss_scale_collapse.check,
    "divergence": divergence.check,
    "loss-spike": loss_spike.check,
    "exploding-gradients": exploding_gradients.check,
    "learning-rate-too-high": learning_rate_too_high.check,
    "missing-warmup": missing_warmup.check,
    "learning-rate-too-low": learning_rate_too_low.check,
    "decayed-too-early": decayed_too_early.check,
    "schedule-mismatch": schedule_mismatch.check,
    "bad-initialization": bad_initialization.check,
    "frozen-parameters": frozen_parameters.check,
    "vanishing-gradients": vanishing_gradients.check,
    "dead-units": dead_units.check,
    "gradients-not-cleared": gradients_not_cleared.check,
    "accumulation-not-normalised": accumulation_not_normalised.check,
    "noisy-loss": noisy_loss.check,
    "overfitting": overfitting.check,
    "underfitting": underfitting.check,
    "over-regularised": over_regularised.check,
    "plateau": plateau.check,
    "stopped-too-early": stopped_too_early.check,
    "validation-regression": validation_regression.check,
    "input-bound": input_bound.check,
    "evaluation-bound": evaluation_bound.check,
    "throughput-decay": throughput_decay.check,
    "memory-leak": memory_leak.check,
    "thread-oversubscription": thread_oversubscription.check,
    "resume-discontinuity": resume_discontinuity.check,
}
"""All rules by the code that they look for."""
