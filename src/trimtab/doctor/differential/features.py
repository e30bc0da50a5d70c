"""A case in numbers that no unit, no length and no trainer changes, each with its words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.differential.judging import of_evaluations
from trimtab.doctor.differential.loss import of_loss
from trimtab.doctor.differential.steering import of_gradients, of_machine, of_rate


class Feature(NamedTuple):
    """How a number is told."""

    metric: str
    text: str
    """What it is of."""
    told: Literal["times", "part", "number"] = "number"
    """A logarithm as a ratio; a part of one as percent; as it is."""

    def show(self, value: float) -> str:
        """The number as a reader wants it."""
        if self.told == "times":
            return f"{math.exp(min(max(value, -30.0), 30.0)):.3g}"
        return f"{100 * value:.3g} %" if self.told == "part" else f"{value:.3g}"


_LOSS, _JUDGED, _RIGHT, _GRADIENT, _RATE, _TIME, _MEMORY = (
    "train/loss",
    "validation/loss",
    "validation/accuracy",
    "grad_norm",
    "learning_rate",
    "step_seconds",
    "memory_bytes",
)

FEATURES: Final[Mapping[str, Feature]] = {
    "loss_fall": Feature(_LOSS, "the first training loss over the last", "times"),
    "loss_fall_in_noise": Feature(_LOSS, "the fall of the training loss over the noise of a value"),
    "loss_noise_of_descent": Feature(_LOSS, "the noise of the training loss over its descent", "times"),
    "loss_noise_of_level": Feature(_LOSS, "the noise of the training loss over its level", "times"),
    "loss_noise_growth": Feature(_LOSS, "the noise of the training loss at the end over that at the start", "times"),
    "loss_descent_2": Feature(_LOSS, "the part of its descent that the training loss makes in 2 % of the log", "part"),
    "loss_descent_10": Feature(
        _LOSS, "the part of its descent that the training loss makes in a tenth of the log", "part"
    ),
    "loss_descent_50": Feature(
        _LOSS, "the part of its descent that the training loss makes in half of the log", "part"
    ),
    "loss_done": Feature(
        _LOSS, "the part of the log after which the training loss is within 5 % of its lowest", "part"
    ),
    "loss_last_quarter": Feature(
        _LOSS, "the part of its descent that the training loss makes in the last quarter", "part"
    ),
    "loss_bend": Feature(_LOSS, "how bent the descent of the training loss is: 0 for a straight line, 1 for a corner"),
    "loss_end_slope": Feature(_LOSS, "the slope of the training loss in the last third, in standard errors"),
    "loss_slope": Feature(_LOSS, "the slope of the training loss, in standard errors"),
    "loss_end_rise": Feature(_LOSS, "how far the last training loss lies above its lowest, of the descent", "part"),
    "loss_hump": Feature(_LOSS, "how far the training loss rises in its first fifth, of the descent", "part"),
    "loss_above_start": Feature(_LOSS, "the part of the log that lies above the first training loss", "part"),
    "loss_bad_share": Feature(_LOSS, "the part of the training losses that are no numbers", "part"),
    "loss_bad_since": Feature(_LOSS, "the part of the log before the first training loss that is no number", "part"),
    "loss_ends_bad": Feature(_LOSS, "the last training losses that are no numbers"),
    "loss_jump_in_noise": Feature(
        _LOSS, "the largest rise of the training loss above what was reached, over its noise"
    ),
    "loss_jump": Feature(_LOSS, "the largest rise of the training loss above what was reached, of the descent", "part"),
    "loss_jump_where": Feature(_LOSS, "the part of the log before the largest rise of the training loss", "part"),
    "loss_jump_back": Feature(_LOSS, "the part of its largest rise that the training loss comes back", "part"),
    "loss_jump_rows": Feature(_LOSS, "the part of the log in which the training loss is that high", "times"),
    "loss_tail": Feature(_LOSS, "the largest deviations of the training loss over the usual ones", "times"),
    "loss_tail_side": Feature(_LOSS, "the largest deviation upwards of the training loss over that downwards", "times"),
    "loss_spikes": Feature(_LOSS, "the part of the training losses that stand out upwards", "part"),
    "loss_memory": Feature(_LOSS, "how much the deviation of a training loss is that of the one before"),
    "loss_wave": Feature(_LOSS, "the same, in standard errors"),
    "loss_period": Feature(_LOSS, "how much the deviations of the training loss come again after some time"),
    "validation_fall": Feature(_JUDGED, "the first validation loss over the lowest", "times"),
    "validation_best_at": Feature(_JUDGED, "the part of the evaluations before the lowest validation loss", "part"),
    "validation_rise": Feature(_JUDGED, "the last validation loss over the lowest", "times"),
    "validation_rise_in_noise": Feature(_JUDGED, "the rise of the validation loss from its lowest over its noise"),
    "validation_rise_of_descent": Feature(_JUDGED, "the rise of the validation loss from its lowest over its descent"),
    "validation_noise": Feature(_JUDGED, "the noise of the validation loss over its lowest", "times"),
    "validation_noise_of_descent": Feature(_JUDGED, "the noise of the validation loss over its descent", "times"),
    "validation_stands": Feature(_JUDGED, "evaluations that agree to the last digit"),
    "validation_end_slope": Feature(_JUDGED, "the slope of the validation loss in the last third, in standard errors"),
    "validation_worst": Feature(_JUDGED, "the highest validation loss over the first", "times"),
    "gap_first": Feature(_JUDGED, "the validation loss over the training loss at the first evaluation", "times"),
    "gap_best": Feature(_JUDGED, "the validation loss over the training loss at the best evaluation", "times"),
    "gap_last": Feature(_JUDGED, "the validation loss over the training loss at the last evaluation", "times"),
    "gap_of_descent": Feature(_JUDGED, "the validation loss less the training loss at the end, of the descent", "part"),
    "gap_growth": Feature(_JUDGED, "how much the gap from training to validation loss grows, of the descent", "part"),
    "gap_slope": Feature(_JUDGED, "the slope of the gap from training to validation loss, in standard errors"),
    "gap_since_best": Feature(_LOSS, "what the training loss falls after the best evaluation, of the descent", "part"),
    "validation_follows": Feature(_JUDGED, "the rank correlation of training and validation loss"),
    "validation_against_start": Feature(_JUDGED, "the lowest validation loss over the first training loss", "times"),
    "accuracy_gain": Feature(_RIGHT, "what the accuracy gains", "part"),
    "accuracy_gain_in_noise": Feature(_RIGHT, "what the accuracy gains, over its noise"),
    "accuracy_loss": Feature(_RIGHT, "what the accuracy loses from its best", "part"),
    "accuracy_noise": Feature(_RIGHT, "the noise of the accuracy", "part"),
    "accuracy_kinds": Feature(_RIGHT, "the different accuracies of those measured", "part"),
    "accuracy_same": Feature(_RIGHT, "the accuracies that equal the last", "part"),
    "accuracy_answers": Feature(_RIGHT, "the answers of which the accuracy is a share", "times"),
    "accuracy_of_chance": Feature(_RIGHT, "the accuracy over that of guessing", "times"),
    "accuracy_since_best": Feature(_RIGHT, "what the accuracy gains after the lowest validation loss", "part"),
    "validation_of_usual": Feature(_JUDGED, "the validation loss over what goes with its accuracy", "times"),
    "validation_of_two_softmax": Feature(
        _JUDGED, "the validation loss over the least of probabilities that pass a softmax"
    ),
    "loss_of_usual": Feature(_LOSS, "the training loss over what goes with the validation accuracy", "times"),
    "accuracy_gap": Feature("train/accuracy", "the training accuracy less the validation accuracy", "part"),
    "gradient_start": Feature(_GRADIENT, "the first gradient norm over the usual one", "times"),
    "gradient_growth": Feature(_GRADIENT, "the gradient norm in the last quarter over that in the first", "times"),
    "gradient_tail": Feature(_GRADIENT, "the largest gradient norm over the usual one", "times"),
    "gradient_spread": Feature(
        _GRADIENT, "the gradient norm that a tenth exceed over that which nine tenths do", "times"
    ),
    "gradient_zeros": Feature(_GRADIENT, "the part of the gradient norms that are 0", "part"),
    "gradient_same": Feature(_GRADIENT, "the part of the gradient norms that stand at a bound", "part"),
    "gradient_bad": Feature(_GRADIENT, "the part of the gradient norms that are no numbers", "part"),
    "gradient_steadiness": Feature(_GRADIENT, "how steadily the gradient norm grows: 1 always, -1 never"),
    "gradient_noise": Feature(_GRADIENT, "the change of the gradient norm from one value to the next", "part"),
    "gradient_memory": Feature(_GRADIENT, "how much a gradient norm is that of the step before"),
    "gradient_follows": Feature(_GRADIENT, "the rank correlation of gradient norm and training loss"),
    "rate_peak": Feature(_RATE, "the highest learning rate, or 0.001 where it is below that,", "times"),
    "rate_first": Feature(_RATE, "the first learning rate of the highest", "part"),
    "rate_last": Feature(_RATE, "the last learning rate of the highest", "part"),
    "rate_mean": Feature(_RATE, "the mean learning rate of the highest", "part"),
    "rate_warmup": Feature(_RATE, "the part of the log before the highest learning rate", "part"),
    "rate_tiny": Feature(_RATE, "the part of the log in which the learning rate is next to nothing", "part"),
    "rate_up": Feature(_RATE, "how far the learning rate rises again, of the highest", "part"),
    "rate_largest_drop": Feature(_RATE, "the largest fall of the learning rate at once, of the highest", "part"),
    "rate_largest_rise": Feature(_RATE, "the largest rise of the learning rate at once, of the highest", "part"),
    "rate_constant": Feature(_RATE, "the part of the log in which the learning rate stands", "part"),
    "descent_at_low_rate": Feature(
        _LOSS, "the part of its descent that the training loss makes at a tenth of the rate", "part"
    ),
    "time_growth": Feature(_TIME, "the time of a step in the last quarter over that in the first", "times"),
    "time_steadiness": Feature(_TIME, "how steadily the time of a step grows: 1 always, -1 never"),
    "time_data": Feature("data_seconds", "the part of a step in which it waits for data", "part"),
    "memory_growth": Feature(_MEMORY, "the memory in the last quarter over that in the first", "times"),
    "memory_steadiness": Feature(_MEMORY, "how steadily memory grows: 1 always, -1 never"),
    "length_of_plan": Feature(_LOSS, "the part of the planned steps that were made", "part"),
}
"""What `features_of` may tell."""


def features_of(case: Case) -> Mapping[str, float]:
    """Every feature that can be told of `case`, by name; what was not logged has none."""
    found: dict[str, float] = {}
    with np.errstate(all="ignore"):
        for part in (of_loss, of_evaluations, of_gradients, of_rate, of_machine):
            found |= {name: value for name, value in part(case) if value is not None and math.isfinite(value)}
    return found
