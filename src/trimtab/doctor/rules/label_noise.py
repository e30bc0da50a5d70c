"""label-noise: part of the labels are wrong.

Looks for: labels that contradict answers which ought to be sure. Counting runs of tokens (the fact `counting.labels`)
    errs in the surest quarter of its answers as often as in the next: errors that do not grow with doubt are not of the
    answers but of the labels. A task that is merely hard is right where it is sure. Of rows of one length, as pixels
    and columns make them, the nearest rows are asked where they tell more. Of tags words are counted, and their errors
    must come one by one, not text by text. Also validation labels that the same counts tell far better than those that
    were counted, and equal texts with different labels (`contradictions`). In logs, a training loss that stays far
    above the validation loss, where one part of wrong labels explains both: so high a floor, and answers that are right
    and no surer than the rest of the labels is right, in steps that scatter as drawing wrong labels does, or with a
    training accuracy that is as much too low. Or a validation accuracy that falls by far from an early best of three
    fifths and more, while the training accuracy goes on rising: wrong labels are learned last, and learning them by
    heart spoils what was known.
Why it matters: the wrong part is a floor of the loss, and a bound of every accuracy that is measured with such labels;
    a model that trains on learns it by heart.
Evidence: errors of the surest answers, texts with two labels, accuracies before and after.
Remedy: look at the samples with the highest loss (`trimtab evaluate RUN`, `evaluation.details`) and mend their labels;
    fewer epochs, since wrong labels are learned last. Smoothed labels did not lower the loss on right ones.
False alarms: classes that overlap by nature, where several answers are right. Mixed samples (mixup) and label
    smoothing lift the training loss, too: a tenth of smoothing lies below what is looked for, and scatters less.
    Where validation labels are as wrong as those of training, curves tell nothing but a hard task. Where all labels
    are wrong counting finds nothing at all: that is random-labels.
Source: Northcutt et al. 2021, arXiv 1911.00068 (labels against answers that are sure); Arpit et al. 2017, arXiv
    1706.05394, and Liu et al. 2020, arXiv 2007.00151, for what is learned last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.classes import classifies, num_classes, usual_loss
from trimtab.doctor.reading.contradicted import accuracy_of_counting, better_elsewhere, contradictions, sure_errors
from trimtab.doctor.reading.curves import Curve, noise_of
from trimtab.doctor.reading.evaluations import judged_texts, noise_of_evaluations
from trimtab.doctor.reading.medians import median

CODE: Final = "label-noise"
FALLS: Final = 0.05
LEAST_SHARE: Final = 0.15
"""Of the labels: what a tenth of smoothing looks like lies below."""
LEAST_RIGHT: Final = 0.6
"""Of the answers: a model that is right less often may be as unsure by itself."""
MOST_IN_A_BATCH: Final = 1024.0
FEWEST: Final = 30
"""Training losses, of which the scatter tells; fewer do where the training accuracy does."""
FEWEST_TOLD: Final = 12
SMOOTHED: Final = 0.2
"""Part of wrong labels that smoothing them on purpose looks like."""


def check(case: Case) -> Iterator[Finding]:
    """A warning."""
    if not classifies(case):
        return
    evidence = [*sure_errors(case), *better_elsewhere(case), *contradictions(case)]
    sure = 0.85
    if not evidence:
        if case.fact("counting", "labels") is not None and accuracy_of_counting(case) > 0.5:
            return  # it could tell, and the surest answers are right
        evidence, sure = [*_floor(case)], 0.75
        told = _right_in_training(case) is not None
        if evidence and (evidence[0].observed or 0.0) < SMOOTHED and not case.config and not told:
            sure = 0.5  # a remark
    if not evidence:
        evidence, sure = [*_falling_accuracy(case)], 0.6
    if not evidence:
        return
    part = evidence[0].observed or 0.0
    about = f"about {part:.0%} of them" if sure > 0.7 else "a part of them"
    if sure < 0.6:
        about = f"about {part:.0%} of them, or smoothed on purpose"
    yield Finding(
        CODE,
        "warning",
        sure,
        1,
        f"labels are wrong, {about}: "
        + (
            "they contradict answers that are sure"
            if sure > 0.8
            else "right answers cost more than they could otherwise"
        ),
        tuple(evidence),
        remedies=(
            Remedy("look at the samples with the highest loss, and mend or leave out those whose label is wrong"),
            Remedy(
                "stop before the training accuracy passes the best validation accuracy: wrong labels are learned last"
            ),
        ),
    )


def _floor(case: Case) -> Iterator[Evidence]:
    """A part of wrong labels that makes the training loss what it is, and right answers as unsure as they are."""
    accuracy, validation, loss = (
        Curve.of(case.evaluated("validation/accuracy")),
        Curve.of(case.validation_loss()),
        Curve.of(case.loss()),
    )
    number = num_classes(case)
    if (
        accuracy is None
        or validation is None
        or loss is None
        or number is None
        or number < 3
        or case.counts_epochs
        or min(len(accuracy), len(validation)) < 5
        or len(loss) < (FEWEST if (learned := _right_in_training(case)) is None else FEWEST_TOLD)
        or any(case.setting(f"objective.{one}") for one in ("label_smoothing", "distillation.teacher"))
    ):
        return
    late = len(loss) - len(loss) // 3
    begin = int(loss.steps[late])
    right, judged, seen = (
        accuracy.level(begin, math.inf),
        validation.level(begin, math.inf),
        loss.level(begin, math.inf),
    )
    if not all(math.isfinite(one) for one in (right, judged)) or right < LEAST_RIGHT:
        return
    share = share_of_floor(seen, number)
    usual, needed = usual_loss(right, number), -math.log(max(1.0 - share, 1e-9))
    # Steps that draw wrong labels by chance scatter by this in batches of 1024, and by more in smaller ones.
    rise = math.log(max((1.0 - share) * (number - 1.0) / max(share, 1e-9), 1.0))
    least = math.sqrt(share * (1.0 - share) / MOST_IN_A_BATCH) * rise
    every = median(np.diff(loss.steps)) if case.target == "huggingface" else 1.0  # it logs means
    scatter = noise_of(loss.values[late:]) * math.sqrt(every)
    if (
        share < LEAST_SHARE
        or seen < 1.3 * judged
        or judged < usual
        or not needed <= judged <= 2.6 * needed
        or (scatter < least if learned is None else learned > 1.0 - 0.7 * share or learned > right - 0.5 * share)
    ):
        return
    told = (
        f"from step {begin:,} on the training loss is {seen:.2f} and the validation loss {judged:.2f} at an accuracy "
        f"of {right:.0%}, where {usual:.2f} is usual: with {share:.0%} of the labels of {number:.0f} classes wrong the "
        f"one is the least that there can be, and the other is {needed:.2f} or more"
    )
    yield Evidence("train/loss", (begin, loss.last_step), share, 0.0, told)


def _right_in_training(case: Case) -> float | None:
    """The training accuracy of the last third: of wrong labels it tells as many as are wrong, of smoothed ones none."""
    accuracy = Curve.of(case.history.get("train/accuracy"))
    if accuracy is None or len(accuracy) < FEWEST_TOLD:
        return None
    return float(np.mean(accuracy.values[-(len(accuracy) // 3) :]))


def share_of_floor(loss: float, number: float) -> float:
    """The part of wrong labels, drawn evenly among the other classes, whose entropy is `loss`."""
    low, high = 0.0, 1.0 - 1.0 / number
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if usual_loss(1.0 - middle, number) < loss else (low, middle)
    return low


def _falling_accuracy(case: Case) -> Iterator[Evidence]:
    validation, training = Curve.of(case.evaluated("validation/accuracy")), Curve.of(case.history.get("train/accuracy"))
    loss = Curve.of(case.validation_loss())
    if validation is None or training is None or loss is None or len(validation) < 6 or len(loss) < 6:
        return
    best_at = int(validation.smoothed.argmax())
    best, last = float(validation.smoothed[best_at]), float(validation.values[-max(2, len(validation) // 6) :].mean())
    if best < LEAST_RIGHT:
        return  # nothing was known that wrong labels could spoil
    number = judged_texts(case)
    error = 2.0 * noise_of_evaluations(validation.values)
    if number:
        error = max(error, 2.0 * math.sqrt(best * (1 - best) / number))
    rose = float(loss.values[-2:].mean()) > 1.3 * float(loss.values.min())
    if best - last < max(FALLS, error) or best_at > 0.6 * len(validation) or not rose or training.end < best + 0.05:
        return
    onset = int(validation.steps[best_at])
    told = (
        f"the validation accuracy fell from {best:.1%} at step {onset:,} to {last:.1%}, while the training accuracy "
        f"rose to {training.end:.1%}"
    )
    yield Evidence("validation/accuracy", (onset, validation.last_step), last, best, told)
