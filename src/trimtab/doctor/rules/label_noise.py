"""label-noise: part of the labels are wrong.

Looks for: labels that contradict answers which ought to be sure. Counting runs of tokens (the fact `counting.labels`)
    errs in the surest quarter of its answers as often as in the next: errors that do not grow with doubt are not of
    the answers but of the labels. A task that is merely hard is right where it is sure. Also equal texts with
    different labels (`contradictions`), and, in logs, a validation accuracy that falls by far from an early best while
    the training accuracy goes on rising: wrong labels are learned last, and learning them by heart spoils what was
    known.
Why it matters: the wrong part is a floor of the loss, and a bound of every accuracy that is measured with such labels;
    a model that trains on learns it by heart.
Evidence: errors of the surest answers, texts with two labels, accuracies before and after.
Remedy: look at the samples with the highest loss (`trimtab evaluate RUN`, `evaluation.details`) and mend their labels;
    fewer epochs, since wrong labels are learned last. Smoothed labels did not lower the loss on right ones.
False alarms: classes that overlap by nature, where several answers are right. Where all labels are wrong counting
    finds nothing at all: that is random-labels.
Source: Northcutt et al. 2021, arXiv 1911.00068 (labels against answers that are sure); Arpit et al. 2017, arXiv
    1706.05394, and Liu et al. 2020, arXiv 2007.00151, for what is learned last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from trimtab.doctor.case import Case
from trimtab.doctor.classes import classifies
from trimtab.doctor.curves import Curve
from trimtab.doctor.evaluations import judged_texts, noise_of_evaluations
from trimtab.doctor.finding import Evidence, Finding, Remedy

CODE: Final = "label-noise"
LEAST: Final = 0.03
"""Of the surest answers: fewer errors are those of a good guess."""
CONTRADICTED: Final = 0.02
FALLS: Final = 0.05


def check(case: Case) -> Iterator[Finding]:
    """A warning."""
    if not classifies(case):
        return
    evidence = [*_sure_errors(case), *_contradictions(case)]
    sure = 0.85
    if not evidence:
        if case.fact("counting", "labels") is not None and _accuracy_of_counting(case) > 0.5:
            return  # it could tell, and the surest answers are right
        evidence, sure = [*_falling_accuracy(case)], 0.6
    if not evidence:
        return
    part = evidence[0].observed or 0.0
    about = f"about {part:.0%} of them" if sure > 0.8 else "a part of them"
    yield Finding(
        CODE,
        "warning",
        sure,
        1,
        f"labels are wrong, {about}: they contradict answers that are sure",
        tuple(evidence),
        remedies=(
            Remedy("look at the samples with the highest loss, and mend or leave out those whose label is wrong"),
            Remedy(
                "stop before the training accuracy passes the best validation accuracy: wrong labels are learned last"
            ),
        ),
    )


def _accuracy_of_counting(case: Case) -> float:
    """0 at the share of the most frequent class, 1 where all is right."""
    accuracy, majority = (case.number("counting", "labels", name) or 0.0 for name in ("accuracy", "majority"))
    return (accuracy - majority) / max(1.0 - majority, 1e-9)


def _sure_errors(case: Case) -> Iterator[Evidence]:
    errors, texts = case.fact("counting", "labels", "sure_errors"), case.number("counting", "labels", "texts")
    if not isinstance(errors, list) or not texts or _accuracy_of_counting(case) < 0.3:
        return
    number = max(1.0, texts // 4)
    surest, following = float(errors[0]), float(errors[1])
    spread = math.sqrt(max(surest * (1 - surest), 0.25 / number) / number)
    if surest - 2.0 * spread < LEAST or following > 1.7 * surest + 2.0 * spread:
        return
    told = (
        f"of the surest quarter of what counting tells {surest:.1%} are labelled otherwise, and {following:.1%} of the "
        "next: errors do not grow with doubt"
    )
    yield Evidence("facts.counting.labels.sure_errors", (0, 0), surest, 0.01, told)


def _contradictions(case: Case) -> Iterator[Evidence]:
    number, texts = case.number("contradictions") or 0.0, case.number("training", "documents")
    if texts and number >= max(3.0, CONTRADICTED * texts):
        told = f"{number:,.0f} of {texts:,.0f} texts stand in the training set with different labels"
        yield Evidence("facts.contradictions", (0, 0), number / texts, 0.0, told)


def _falling_accuracy(case: Case) -> Iterator[Evidence]:
    validation, training = Curve.of(case.evaluated("validation/accuracy")), Curve.of(case.history.get("train/accuracy"))
    loss = Curve.of(case.validation_loss())
    if validation is None or training is None or loss is None or len(validation) < 6 or len(loss) < 6:
        return
    best_at = int(validation.smoothed.argmax())
    best, last = float(validation.smoothed[best_at]), float(validation.values[-max(2, len(validation) // 6) :].mean())
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
