"""double-softmax: the loss takes a softmax of what is a softmax already.

Looks for: answers that are probabilities before step 1 (the fact `first_batch.sum_to_one`; of several labels a text all
    between 0 and 1, `within_one`). In logs without it: a loss
    that never comes below ln(1 + (K - 1) / e), the least that cross-entropy can be of probabilities of K classes,
    while the accuracy is that of a model whose loss would be far lower, or lower and still falling; the loss must
    begin near ln K. Or a validation loss that has the same sum with the accuracy, evaluation after evaluation, while
    that moves: answers of 0 and 1 cost ln(K - 1 + e) as logits, less 1 where they are right, and no sound loss falls by
    so little as answers become right. Where that sum scatters it must be that of as many classes as the first loss
    tells, to a hundredth in the second half; of more than twenty to four. Both are seen once training has come to
    rest: the loss of a model that is not sure yet falls as slowly at first, and adds up by chance. Where the sum is not
    that of a whole number of classes, or falls faster or slower than the accuracy rises, it is a remark: penalties and
    soft labels lift a loss, too.
Why it matters: the loss has a floor, at 1.46 of 10 classes and one below ln K of many, and its gradient is so small
    that the model learns slowly. Nothing fails, and the accuracy still rises.
Evidence: the share of answers that sum to one, or floor, loss and accuracy side by side.
Remedy: give the loss logits: leave the softmax out of the model, or take a loss of probabilities (`NLLLoss` of the
    log). A log-softmax before cross-entropy does no harm: it is its own fixed point.
False alarms: none by the fact, but for a few labels, of which the loss must show it. By curves alone label smoothing
    has a floor, too, of 0.5 at 0.1 and 10 classes: a run that says it smooths is left out. With two classes the floor
    is 0.31, where only an accuracy near 1 tells.
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
from trimtab.doctor.reading.curves import Curve, Floats
from trimtab.doctor.reading.medians import median
from trimtab.runs import format

CODE: Final = "double-softmax"
ADDS_UP: Final = 0.2
"""Of what the accuracy scatters by over the evaluations: the scatter of its sum with the loss."""
MOVES: Final = 0.02
"""Accuracy that moved by less shows nothing."""
REST: Final = 0.1
"""Of all that the loss fell by, in the last quarter of the run."""
SLOPE: Final = 0.1
"""How far the fall of the loss for each right answer may be off 1."""
WHOLE, COUNTED, NEAR_GUESS, SAME = 0.15, 10.0, 0.06, 0.05
"""Off a whole number of classes, up to how many that tells something; part of the guess by the first loss that more may
be off it, and of what the accuracy scatters by, that a sum may where no guess agrees."""
FEW: Final = 20.0
"""Classes: of more no sound model is where saturated probabilities are."""
OFF, EXACT, OFF_FEW = 0.04, 0.012, 0.06
"""How far the sum may be off that of so many classes: of many; of few in the second half, and before."""
STILL: Final = 0.1
"""Gradient norm: probabilities of 0 and 1 pass on next to none."""
ROSE: Final = 0.15
ALONE: Final = 0.03
"""Of the first loss, by which training alone is lifted."""
FEW_LABELS: Final = 7.0
OF_A_LABEL: Final = 0.31
"""Cross-entropy of a probability of 1 that is taken for a logit, where the label is there."""
REMEDIES: Final = (
    Remedy("take the softmax out of the model: the loss makes its own of logits"),
    Remedy("where the model has to give probabilities, let the loss take their logarithm (NLLLoss)"),
)


def check(case: Case) -> Iterator[Finding]:
    """A warning: surely by the fact, probably by the floor."""
    curve = Curve.of(case.loss())
    if curve is None:
        return
    within = case.number("first_batch", "within_one")
    if within is not None:
        if within == 1.0 and _may_be_of_labels(case, curve):
            yield _of_labels(curve)
        return
    share = case.number("first_batch", "sum_to_one")
    if share is not None:
        if share > 0.99:
            yield _finding(case, curve, share)
        return
    if any(case.setting(f"objective.{one}") for one in ("label_smoothing", "distillation.teacher")):
        return
    if (adds_up := _adds_up(case, curve)) is not None:
        yield adds_up
        return
    if len(curve) < 12:
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
    floor, top, usual = floor_of(number), math.log(number), usual_loss(accuracy.end, number)
    lowest = float(curve.smoothed.min())
    begins = curve.from_start and abs(curve.start - top) < 0.15 * top
    if not begins or lowest < 0.985 * floor or curve.end > top:
        return
    validation = Curve.of(case.validation_loss())
    if validation is not None and (
        float(validation.values.min()) < 0.97 * floor or validation.end < curve.end - ALONE * curve.start
    ):
        return  # mixed samples or soft targets lift the training loss alone; a softmax too many would lift both
    far = curve.end > 1.5 * usual + 0.1 and _rests(curve)
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


def _adds_up(case: Case, curve: Curve) -> Finding | None:
    """Whether loss and accuracy of evaluations have the same sum: probabilities that are taken for logits cost
    ln(K - 1 + e) where they are 0 and 1, less 1 for a right one. A sound loss falls by more as answers become right."""
    loss, accuracy = Curve.of(case.validation_loss()), Curve.of(case.evaluated("validation/accuracy"))
    if loss is None or accuracy is None or len(loss) != len(accuracy) or len(loss) < 5:
        return None
    sums = loss.values + accuracy.values
    most = median(sums)
    scatter, moved = float(np.std(sums)), float(np.std(accuracy.values))
    number, guess = math.exp(min(most, 50.0)) - math.e + 1.0, num_classes(case) or 0.0
    alike = moved >= MOVES / 4 and scatter <= ADDS_UP * moved and number > max(2.5, 0.95 * guess)
    is_of_guess = guess > 2.0 and _is_sum_of(guess, sums, accuracy, case)
    if not alike and not is_of_guess:
        return None
    slope = -float(np.cov(loss.values, accuracy.values, bias=True)[0, 1]) / max(moved * moved, 1e-12)
    same = scatter <= SAME * moved
    whole = abs(number - round(number)) <= WHOLE if number <= COUNTED else abs(number - guess) <= NEAR_GUESS * guess
    sure = is_of_guess or (
        abs(slope - 1.0) <= SLOPE and (whole or (same and number > COUNTED)) and (same or _rests(curve))
    )
    told = (
        f"over {len(sums)} evaluations loss and accuracy add up to {format.decimal(most)}, to {scatter:.2g}, while the "
        f"accuracy went from {accuracy.values.min():.1%} to {accuracy.values.max():.1%}: ln(K - 1 + e) is that of "
        f"{number:.3g} classes"
    )
    return Finding(
        CODE,
        "warning" if sure else "info",
        0.85 if sure else 0.4,
        curve.first_step,
        f"the validation loss is what answers of 0 and 1 cost that are taken for logits of {number:.3g} classes: the "
        "logits are probabilities already",
        (Evidence("validation/loss", (loss.first_step, loss.last_step), loss.end, most - accuracy.end, told),),
        remedies=REMEDIES,
    )


def _is_sum_of(number: float, sums: Floats, accuracy: Curve, case: Case) -> bool:
    """Whether the sum comes to be that of so many classes: of few in the second half, while much was learned."""
    off = np.abs(sums - math.log(number - 1.0 + math.e))
    late = float(off[len(off) // 2 :].max())
    if number > FEW:
        norms = Curve.of(case.history.get("grad_norm"))
        still = norms is None or norms.end < STILL
        return late < OFF and accuracy.end > 3.0 / number and still and sums[-1] - accuracy.end > 0.9 * float(sums[-1])
    return late < EXACT and float(off.max()) < OFF_FEW and accuracy.end > max(0.5, float(accuracy.values[0]) + ROSE)


def _rests(curve: Curve) -> bool:
    """Whether it has fallen by little in the last quarter."""
    smooth = curve.smoothed
    return float(smooth[(len(smooth) - 1) * 3 // 4] - smooth[-1]) <= REST * float(smooth[0] - smooth[-1])


def _stands(curve: Curve) -> bool:
    """Whether it has come to rest: a sound model that is as far from what its accuracy allows goes on falling."""
    half = (curve.first_step + curve.last_step) / 2
    fell = curve.level(half, half + 0.1 * (curve.last_step - half)) - curve.end
    return curve.last_step >= 100 and fell < 0.02 * curve.descent and curve.descent < 1.0


def floor_of(number: float) -> float:
    """The cross-entropy of probabilities taken for logits, where the right one of so many is 1."""
    return math.log(1.0 + (number - 1.0) / math.e)


def _may_be_of_labels(case: Case, curve: Curve) -> bool:
    """Whether the loss is not below what labels cost that are all there. The logits of few labels may all be above 0 by
    chance, as those of other texts are alike: then a quarter of the run must have come to no less."""
    plain = case.setting("objective.name") in (None, "cross_entropy")
    few = (num_classes(case) or 0.0) < FEW_LABELS
    if few and curve.last_step < 0.25 * case.planned_steps:
        return False
    return not plain or float(curve.smoothed.min()) >= OF_A_LABEL


def _of_labels(curve: Curve) -> Finding:
    told = (
        "before step 1 all answers lie between 0 and 1: as logits they cost ln 2 at least where a label is not there, "
        "and 0.31 where it is"
    )
    lowest = float(curve.smoothed.min())
    level = f"the training loss comes to {format.decimal(lowest)} at best"
    return Finding(
        CODE,
        "warning",
        0.9,
        1,
        "the loss takes a sigmoid of what is one already",
        (
            Evidence("facts.first_batch.within_one", (0, 1), 1.0, 0.0, told),
            Evidence("train/loss", (curve.first_step, curve.last_step), lowest, None, level),
        ),
        remedies=(Remedy("take the sigmoid out of the model: the loss makes its own of logits"),),
    )


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
