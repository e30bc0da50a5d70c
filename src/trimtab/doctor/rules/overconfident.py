"""overconfident: the validation loss rises while the accuracy still improves.

Looks for: a validation loss that ends above its best by more than the noise of evaluations, and an accuracy that
    gained since then by more than chance. Decisions get better, and what is wrong is said ever more surely.
Why it matters: probabilities mean less and less. Whoever stops at the best loss gives up accuracy, and whoever goes on
    gets a model whose doubt is worth nothing.
Evidence: loss and accuracy at the best loss and at the end; the calibration error at both.
Remedy: label smoothing, and of little data, read ten times and more, dropout, weight decay and patience with it; a
    temperature fitted at the end (`evaluation.calibration: temperature`); choose by accuracy where decisions alone
    count (`checkpoint.metric`).
False alarms: an accuracy that rises within its noise is a remark. Where it falls or stands still this is overfitting,
    no more.
Source: Guo et al. 2017, arXiv 1706.04599, section 3, figure 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.classes import classifies
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.evaluations import judged_texts, noise_of_evaluations
from trimtab.doctor.reading.medians import median
from trimtab.doctor.remedies import for_little_data
from trimtab.runs import format

CODE: Final = "overconfident"
LEAST: Final = 0.006
RISES: Final = 0.05
"""Of the loss; half of it does where that is far above the scatter of evaluations."""
SURE: Final = 8.0
"""Times that scatter."""


def check(case: Case) -> Iterator[Finding]:
    """A warning; a remark where the best weights were restored, or the accuracy gained no more than chance may give."""
    loss, accuracy = Curve.of(case.validation_loss()), Curve.of(case.evaluated("validation/accuracy"))
    if loss is None or accuracy is None or len(loss) < 5 or len(loss) != len(accuracy):
        return
    is_known = case.fact("task") is not None or case.fact("tokenizer", "vocabulary_size") is not None
    if is_known and not classifies(case):
        return  # of tokens the most likely is right more often all the same
    best_at = int(loss.values.argmin())
    after = len(loss) - best_at - 1
    if after < 2:
        return
    num_last = max(2, after // 2)
    risen = float(loss.values[-num_last:].mean()) - median(loss.values[max(0, best_at - 1) : best_at + 2])
    then, now = (
        median(accuracy.values[max(0, best_at - 1) : best_at + 2]),
        float(accuracy.values[-num_last:].mean()),
    )
    # The same texts are judged each time, so that the difference scatters less than two samples would.
    since = max(0, best_at - 2)  # what is steep at first is no noise
    error = noise_of_evaluations(accuracy.values[since:]) * (1 / num_last + 1 / 3) ** 0.5
    number = judged_texts(case)
    least = max(LEAST, 1.5 * error, 2.0 / number if number else 0.0)
    scale = max(abs(float(loss.values[best_at])), 0.1 * float(loss.values.max()))
    scatter = noise_of_evaluations(loss.values[since:])
    enough = min(max(3.0 * scatter, RISES * scale), max(SURE * scatter, 0.5 * RISES * scale))
    if now - then < LEAST or risen < enough:
        return
    by_chance = now - then < least
    onset, last = int(loss.steps[best_at]), loss.last_step
    ended = case.history.ended
    restored = ended is not None and ended.restored_step is not None and ended.restored_step <= onset
    evidence = [
        Evidence(
            "validation/loss",
            (onset, last),
            loss.end,
            float(loss.values[best_at]),
            f"the validation loss rose from {format.decimal(float(loss.values[best_at]))} at step {onset:,} to "
            f"{format.decimal(float(loss.values[-1]))}",
        ),
        Evidence(
            "validation/accuracy",
            (onset, last),
            now,
            then,
            f"the validation accuracy rose meanwhile from {then:.1%} to {now:.1%}",
        ),
    ]
    error_of_calibration = Curve.of(case.evaluated("validation/calibration_error"))
    if error_of_calibration is not None and len(error_of_calibration) == len(loss):
        was, became = float(error_of_calibration.values[best_at]), float(error_of_calibration.values[-1])
        told = f"confidence and accuracy were {was:.1%} apart then, and are {became:.1%} now"
        evidence.append(Evidence("validation/calibration_error", (onset, last), became, was, told))
    yield Finding(
        CODE,
        "info" if restored or by_chance else "warning",
        0.5 if by_chance else 0.85,
        onset,
        "the model grows surer than it has reason to be: it decides better, and its probabilities mean less",
        tuple(evidence),
        remedies=tuple(_remedies(case)),
    )


def _remedies(case: Case) -> Iterator[Remedy]:
    if case.target == "trimtab":
        if case.setting("objective.label_smoothing") == 0.0:
            yield from for_little_data(case)
            yield Remedy("smooth the labels", "trimtab", {"objective.label_smoothing": 0.1})
        if case.setting("evaluation.calibration") != "temperature":
            yield Remedy("fit a temperature at the end", "trimtab", {"evaluation.calibration": "temperature"})
    else:
        yield Remedy("smooth the labels by 0.1, or fit a temperature on the validation set")
    yield Remedy("where decisions alone count, choose the checkpoint by accuracy")
