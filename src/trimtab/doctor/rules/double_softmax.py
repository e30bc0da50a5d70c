"""double-softmax: the loss takes a softmax of what is a softmax already.

Looks for: answers that are probabilities before step 1 (the fact `first_batch.sum_to_one`). In logs without it: a loss
    that never comes below ln(1 + (K - 1) / e), the least that cross-entropy can be of probabilities of K classes,
    while the accuracy is that of a model whose loss would be far lower, or lower and still falling; the loss must
    begin near ln K. Or a validation loss that is ln(K - 1 + e) less the accuracy, evaluation after evaluation: what
    answers of 0 and 1 cost as logits. Among many classes no sound model is near that; among few the first losses must
    also differ as little as they do where probabilities are all that moves them, or the sum hold to a hundredth; and
    the accuracy must have risen.
Why it matters: the loss has a floor, at 1.46 of 10 classes and one below ln K of many, and its gradient is so small
    that the model learns slowly. Nothing fails, and the accuracy still rises.
Evidence: the share of answers that sum to one, or floor, loss and accuracy side by side.
Remedy: give the loss logits: leave the softmax out of the model, or take a loss of probabilities (`NLLLoss` of the
    log). A log-softmax before cross-entropy does no harm: it is its own fixed point.
False alarms: none by the fact. By curves alone label smoothing has a floor, too, of 0.5 at 0.1 and 10 classes: a run
    that says it smooths is left out. With two classes the floor is 0.31, where only an accuracy near 1 tells.
Source: own; the floor follows from the cross-entropy of a probability vector whose right entry is 1. The fault is
    among the common ones in Karpathy 2019, "A Recipe for Training Neural Networks".
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.classes import num_classes, usual_loss
from trimtab.doctor.reading.curves import Curve
from trimtab.runs import format

CODE: Final = "double-softmax"
FEW: Final = 20.0
"""Classes: of more no sound model is where saturated probabilities are."""
OFF_MANY: Final = 0.04
OFF_FEW: Final = 0.06
"""Of the loss: how far it may be from what the accuracy makes it; the number of many classes is guessed."""
EXACT: Final = 0.012
"""The same over the second half of the evaluations: so near that nothing else need speak for it."""
STILL: Final = 0.1
"""Gradient norm: probabilities of 0 and 1 pass on next to none."""
ALIKE: Final = 0.004
"""Of ln K: how much the first five losses may differ. Those of a sound model differ K times as much."""
RISES: Final = 0.1
REMEDIES: Final = (
    Remedy("take the softmax out of the model: the loss makes its own of logits"),
    Remedy("where the model has to give probabilities, let the loss take their logarithm (NLLLoss)"),
)


def check(case: Case) -> Iterator[Finding]:
    """A warning: surely by the fact, probably by the floor."""
    curve = Curve.of(case.loss())
    if curve is None:
        return
    share = case.number("first_batch", "sum_to_one")
    if share is not None:
        if share > 0.99:
            yield _finding(case, curve, share)
        return
    if len(curve) < 12 or any(case.setting(f"objective.{one}") for one in ("label_smoothing", "distillation.teacher")):
        return
    number = num_classes(case)
    accuracy = Curve.of(case.history.get("train/accuracy")) or Curve.of(case.evaluated("validation/accuracy"))
    if (
        number is None
        or number < 2
        or accuracy is None
        or accuracy.end < (max(0.3, 2.0 / number) if number <= 20 else 0.1)
    ):
        return
    if (saturated := _saturated(case, curve, number)) is not None:
        yield saturated
        return
    floor, top, usual = floor_of(number), math.log(number), usual_loss(accuracy.end, number)
    lowest = float(curve.smoothed.min())
    begins = curve.from_start and abs(curve.start - top) < 0.15 * top
    if not begins or lowest < 0.985 * floor or curve.end > top:
        return
    validation = Curve.of(case.validation_loss())
    if validation is not None and float(validation.values.min()) < 0.97 * floor:
        return  # mixed samples or soft targets lift the training loss alone; a softmax too many would lift both
    far = curve.end > 1.5 * usual + 0.1
    if not far and not (_stands(curve) and curve.end > 1.1 * usual and number > 20 and curve.end > floor + 0.1):
        return
    yield Finding(
        CODE,
        "warning",
        0.85 if curve.end > 2.5 * usual else 0.7,
        curve.first_step,
        f"the loss stays above {format.decimal(floor)}, the least that it can be of {format.count(number)} classes "
        f"whose logits are probabilities already, though the accuracy is {accuracy.end:.0%}",
        (
            Evidence(
                "train/loss",
                (curve.first_step, curve.last_step),
                lowest,
                floor,
                f"the loss came to {format.decimal(lowest)} at best; ln(1 + (K - 1) / e) is {format.decimal(floor)}",
            ),
            Evidence(
                "train/accuracy" if case.history.has("train/accuracy") else "validation/accuracy",
                (accuracy.first_step, accuracy.last_step),
                accuracy.end,
                None,
                f"with an accuracy of {accuracy.end:.0%} a loss of about {format.decimal(usual)} is usual, and it is "
                f"{format.decimal(curve.end)}",
            ),
        ),
        remedies=REMEDIES,
    )


def _saturated(case: Case, curve: Curve, number: float) -> Finding | None:
    """Whether loss and accuracy of evaluations go together as answers of 0 and 1 make them that are taken for logits:
    ln(K - 1 + e) for a wrong one, and 1 less for a right one."""
    loss, accuracy = Curve.of(case.validation_loss()), Curve.of(case.evaluated("validation/accuracy"))
    if loss is None or accuracy is None or len(loss) != len(accuracy) or len(loss) < 5 or number < 3:
        return None
    most = math.log(number - 1.0 + math.e)
    off = np.abs(loss.values + accuracy.values - most)
    half = len(off) // 2
    norms = Curve.of(case.history.get("grad_norm"))
    if number > FEW:
        still = norms is None or norms.end < STILL
        if float(off[half:].max()) > OFF_MANY or accuracy.end < 3.0 / number or not still or loss.end < 0.9 * most:
            return None
    else:
        rose = accuracy.end - float(accuracy.values[0])
        alike = float(np.std(curve.values[:5])) < ALIKE * math.log(number)
        exact = float(off[half:].max()) < EXACT and rose > 1.5 * RISES and accuracy.end > 0.5
        if float(off.max()) > OFF_FEW or rose < RISES or not (alike or exact) or float(curve.values.max()) > most:
            return None
    steps = (int(loss.steps[half]), loss.last_step)
    told = (
        f"over the last {len(off) - half} evaluations loss and accuracy add up to {format.decimal(most)}, which is "
        f"ln(K - 1 + e), to {float(off[half:].max()):.2g}"
    )
    return Finding(
        CODE,
        "warning",
        0.85 if number > FEW else 0.7,
        curve.first_step,
        f"the validation loss is what answers of 0 and 1 cost that are taken for logits of {format.count(number)} "
        "classes: the logits are probabilities already",
        (Evidence("validation/loss", steps, loss.end, most - accuracy.end, told),),
        remedies=REMEDIES,
    )


def _stands(curve: Curve) -> bool:
    """Whether it has come to rest: a sound model that is as far from what its accuracy allows goes on falling."""
    half = (curve.first_step + curve.last_step) / 2
    fell = curve.level(half, half + 0.1 * (curve.last_step - half)) - curve.end
    return curve.last_step >= 100 and fell < 0.02 * curve.descent and curve.descent < 1.0


def floor_of(number: float) -> float:
    """The cross-entropy of probabilities taken for logits, where the right one of so many is 1."""
    return math.log(1.0 + (number - 1.0) / math.e)


def _finding(case: Case, curve: Curve, share: float) -> Finding:
    number = num_classes(case)
    evidence = [
        Evidence(
            "facts.first_batch.sum_to_one",
            (0, 1),
            share,
            0.0,
            f"before step 1 {share:.0%} of the answers lie between 0 and 1 and have a sum of 1",
        )
    ]
    if number is not None:
        floor, lowest = floor_of(number), float(curve.smoothed.min())
        evidence.append(
            Evidence(
                "train/loss",
                (curve.first_step, curve.last_step),
                lowest,
                floor,
                f"of {format.count(number)} classes the loss cannot come below {format.decimal(floor)} so; it came to "
                f"{format.decimal(lowest)}",
            )
        )
    return Finding(
        CODE,
        "warning",
        0.97,
        curve.first_step,
        "what the model gives as logits are probabilities already: softmax is taken of a softmax",
        tuple(evidence),
        remedies=REMEDIES,
    )
