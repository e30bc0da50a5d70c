"""overfitting: the validation loss rises while the training loss falls.

Looks for: a validation loss whose last values lie above its best by more than the noise of evaluations, with at least
    two evaluations after the best, while the training loss (in evaluation mode on a fixed slice, where that is
    measured) went on falling, so that the gap between them grows.
Why it matters: from the best step on the model learns its training samples and not what they have in common.
Evidence: best and last validation loss, the training loss at both, passes over the data.
Remedy: stop there and keep the best weights; more data; dropout, weight decay; a smaller model. Where the data are read
    ten times and more, all together at once.
False alarms: a noisy small validation set: a rise of less than five errors, or of a fiftieth, is a remark.
    Validation data of another kind. A steady gap is healthy, however wide. A training loss that ends above the best
    validation loss is a remark: what is learned by heart costs less.
    When the best weights were restored in the end it is a remark, unless most of the budget was spent in vain.
Source: Prechelt 1998, "Early Stopping - But When?"; the project's rules of thumb.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.evaluations import accuracy_rose, noise_of_evaluations
from trimtab.doctor.reading.medians import median
from trimtab.doctor.remedies import change, for_little_data
from trimtab.runs import format

SMALL_RISE = 0.02
"""Of the best loss: below that it is a remark."""
SURE = 5.0
"""Errors of the last evaluations beside those around the best: below that it is a remark, too."""


def check(case: Case) -> Iterator[Finding]:
    """A warning, or a remark when the rise is small or the best weights were restored."""
    validation = Curve.of(case.validation_loss())
    training = Curve.of(case.evaluated("training_slice/loss")) or Curve.of(case.loss())
    if validation is None or training is None or len(validation) < 4:
        return
    best_at = int(np.argmin(validation.values))
    best, after = float(validation.values[best_at]), validation.values[best_at + 1 :]
    if len(after) < 2:
        return
    num_last = max(2, len(after) // 2)
    last = float(np.mean(after[-num_last:]))
    near = validation.values[max(0, best_at - 1) :]  # the bend of the first descent is no noise
    noise = noise_of_evaluations(near if len(near) >= 5 else validation.values)
    around = median(validation.values[max(0, best_at - 1) : best_at + 2])  # the best is lucky, too
    rise, highest = last - around, float(after.max()) - around
    scale = max(abs(best), 0.1 * float(validation.values.max() - best))
    error = noise * float(np.sqrt(1 / num_last + 1 / 3))  # of the last values beside the three around the best
    steady = len(after) >= 4 or (
        len(after) == 3 and bool((np.diff(after) > 0).all())
    )  # each higher than the one before
    if rise <= max((3 if steady else 5) * error, 0.005 * scale) or rise < 0.4 * highest:
        return
    onset, end = int(validation.steps[best_at]), validation.last_step
    then = _at(training, onset)
    fell = then - _end_of(training)
    by_heart = _end_of(training) < 0.1 * around and then < 0.1 * around  # it has nowhere to fall to
    enough = max(min(0.15 * rise, 0.03 * abs(then)), 2 * training.error(max(3, len(training) // 20)))
    if fell <= enough and not by_heart:
        return
    ended = case.history.ended
    restored = ended is not None and ended.restored_step is not None and ended.restored_step <= onset
    epochs = case.number("epochs")
    seen = None if epochs is None else epochs * onset / max(case.planned_steps, 1)
    wasted = onset < 0.5 * case.planned_steps
    # Noise that few evaluations show is often more than it seems; rises in a row are none.
    sure = rise >= SURE * error or bool((np.diff(after) > 0).all())
    # What is learned by heart costs less than what holds for all did at best.
    learned = _end_of(training) < around
    grave = sure and learned and rise >= SMALL_RISE * scale and (not restored or (wasted and rise >= 0.1 * scale))
    confidence = 0.75 + 0.1 * (rise > 0.1 * scale) + 0.07 * (len(after) >= 4) + 0.05 * ((epochs or 0) > 2)
    if epochs is not None and epochs <= 1:
        confidence -= 0.4  # nothing was seen twice, so nothing can have been learned by heart
    evidence = [
        Evidence(
            "validation/loss",
            (onset, end),
            last,
            best,
            f"the validation loss rose from its best, {format.decimal(best)} at step {onset:,}, to "
            f"{format.decimal(last)} (+{100 * (last - best) / scale:.1f} %)",
        ),
        Evidence(
            "training_slice/loss" if case.evaluated("training_slice/loss") is not None else "train/loss",
            (onset, end),
            _end_of(training),
            then,
            f"the training loss went on from {format.decimal(then)} to "
            f"{format.decimal(_end_of(training))}, so the gap grew by {format.decimal(last - best + fell)}",
        ),
    ]
    accuracy = Curve.of(case.evaluated("validation/accuracy"))
    if accuracy is not None and len(accuracy) == len(validation) and accuracy_rose(case, accuracy, best_at):
        evidence.append(
            Evidence(
                "validation/accuracy",
                (onset, end),
                accuracy.end,
                float(accuracy.values[best_at]),
                "the validation accuracy still improved: it grows too sure of itself before it decides worse",
            )
        )
    if seen is not None:
        evidence.append(
            Evidence(
                "facts.epochs",
                (0, onset),
                seen,
                None,
                f"the best step came after {seen:.1f} passes over the training data",
            )
        )
    yield Finding(
        "overfitting",
        "warning" if grave else "info",
        float(np.clip(confidence, 0.2, 0.97)),
        onset,
        "the model learns the training samples by heart: the validation loss rises while the training loss falls"
        + ("; the best weights were restored" if restored else ""),
        tuple(evidence),
        remedies=tuple(_remedies(case, onset, restored)),
    )


def _at(training: Curve, step: int) -> float:
    """The training loss at a step: of few values as it was measured, since a median of neighbours hides a steep one."""
    return float(np.interp(step, training.steps, training.values)) if len(training) < 20 else training.at(step)


def _end_of(training: Curve) -> float:
    return float(np.mean(training.values[-2:])) if len(training) < 20 else training.end


def _stop_in_hugging_face(case: Case) -> Remedy:
    """Keeping the best needs checkpoints where evaluations are; stopping needs a callback, which is no setting."""
    curve = Curve.of(case.validation_loss())
    every = int(median(np.diff(curve.steps))) if curve is not None and len(curve) > 1 else 0
    config: dict[str, Any] = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss"}
    for what in ("eval", "save"):
        config |= {f"{what}_strategy": "steps"} | ({f"{what}_steps": every} if every else {})
    told = (
        "stop when the validation loss no longer falls, and keep the best weights: give the Trainer "
        "callbacks=[EarlyStoppingCallback(early_stopping_patience=3)], too"
    )
    return Remedy(told, case.target, config)


def _remedies(case: Case, onset: int, restored: bool) -> Iterator[Remedy]:
    """The ladder: of little data all at once; else stop, then regularize what is not regularized yet; more data."""
    if not restored:
        yield from for_little_data(case)
        if case.target == "huggingface":
            yield _stop_in_hugging_face(case)
        elif case.target == "trimtab" and case.setting("stopping.name") == "none":
            config = {"stopping.name": "patience", "stopping.patience": 3}
            yield Remedy(
                "stop when the validation loss no longer falls, and keep the best weights", case.target, config
            )
        else:
            yield Remedy(f"keep the weights of step {onset:,}, and stop there")
    if case.target == "trimtab":
        rate = case.setting("model.dropout.residual")
        if isinstance(rate, int | float) and rate < 0.3:
            more = 0.1 if rate < 0.1 else 0.3
            config = {"model.dropout.residual": more, "model.dropout.feed_forward": more}
            yield Remedy(f"more dropout: {more:g} after attention and feed-forward", case.target, config)
        decay = case.setting("optimizer.weight_decay")
        if isinstance(decay, int | float) and decay < 0.1:
            yield change(case, "more weight decay", weight_decay=0.1)
    else:
        yield change(case, "more weight decay", weight_decay=0.1)
    yield Remedy("more or more varied training data, or a smaller model")
