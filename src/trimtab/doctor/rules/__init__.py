"""What a run's record shows: one rule a file, whose docstring is its page."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Finding, Withheld
from trimtab.doctor.rules import (
    class_collapse,
    corrupt_batch,
    divergence,
    double_softmax,
    evaluated_in_training_mode,
    evaluation_bound,
    frozen_parameters,
    input_bound,
    label_noise,
    leakage,
    learning_rate_too_high,
    learning_rate_too_low,
    loss_scale_collapse,
    loss_spike,
    nan_loss,
    noisy_loss,
    outlier_dominated_loss,
    overconfident,
    overfitting,
    plateau,
    random_labels,
    stopped_too_early,
    target_leak,
    underfitting,
    unscaled_inputs,
    unshuffled_data,
    validation_regression,
    validation_shift,
    validation_too_small,
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
    "double-softmax": double_softmax.check,
    "evaluated-in-training-mode": evaluated_in_training_mode.check,
    "unscaled-inputs": unscaled_inputs.check,
    "target-leak": target_leak.check,
    "leakage": leakage.check,
    "random-labels": random_labels.check,
    "label-noise": label_noise.check,
    "class-collapse": class_collapse.check,
    "unshuffled-data": unshuffled_data.check,
    "corrupt-batch": corrupt_batch.check,
    "outlier-dominated-loss": outlier_dominated_loss.check,
    "validation-shift": validation_shift.check,
    "validation-too-small": validation_too_small.check,
    "overconfident": overconfident.check,
    "input-bound": input_bound.check,
    "evaluation-bound": evaluation_bound.check,
}
"""All rules by the code that they look for."""
