"""class-collapse: every input gets the same class.

Looks for: in the last evaluations, and three at least, a macro-F1 that a single class gives, and a correlation of
    answers and classes (`validation/mcc`) near 0. In logs with neither: an accuracy that is the same to the last digit
    over four evaluations while the loss moves, and that is so from the beginning, or lower than it was; where the
    training loss falls far, only one of chance. Or a loss too low for its accuracy, in validation or, far below the
    validation loss, in training, while evaluations are worse than guessing and no more answers are right than at first:
    then one class weighs so much that the others hardly count. Or one accuracy in all evaluations, whose wrong answers
    would cost more if all weighed the same.
    Where the settings weigh classes so, they say it.
Why it matters: the accuracy looks like something where one class is frequent, and the model knows nothing of its
    input.
Evidence: accuracy, correlation and loss of those evaluations, and the share of the most frequent class.
Remedy: what keeps it from learning comes first: a rate that is too high or too low, labels that tell nothing. Where
    classes are rare: weights (`task.class_weights: balanced`), and choosing by macro-F1.
False alarms: the first evaluations of a sound run, which begins so: it must be past a quarter of its steps. A model
    that is right everywhere. A text that is not read, where the most frequent token is said: that is underfitting. A
    training loss that is divided by micro-batches, or no cross-entropy, tells nothing.
Source: own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.classes import classifies, num_classes, shares
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.evaluations import error_of_share, judged_texts, noise_of_evaluations
from trimtab.doctor.reading.medians import median
from trimtab.doctor.reading.one_class import is_same, of_one_class
from trimtab.doctor.reading.thrown import left_at, was_thrown
from trimtab.runs.printable import printable

CODE: Final = "class-collapse"
FEWEST: Final = 3
ALL_OF_IT: Final = 0.9
"""Of the loss, by its weight and its share: the others hardly count."""
LITTLE_MORE: Final = 0.2
"""Of accuracy, above the share of that class."""
LEARNED: Final = 0.6
"""Of its first loss: a model of one class stays above."""
FELL: Final = 0.05
"""Of accuracy: a model that learned, and says one class in the end, is worse than it was."""
FAR_BELOW: Final = 0.2
"""Of the validation loss: a training loss below that is of other weights of the classes, or of samples by heart."""
MOST_RIGHT: Final = 0.75
ALIKE: Final = 0.15
"""Accuracies of samples that were learned and of others, or of the end and the start: nothing was learned."""
SO_MANY: Final = 60
"""Answers at first, as tokens are."""
RAREST: Final = 0.02
"""Of right answers: numbers that are met exactly are fewer."""
CHEAP: Final = 0.5
"""Times what wrong answers cost at least: a half or less is the probability of the right one, which costs ln 2."""
WORSE: Final = 2.0
"""Times -ln of the share of right answers: evaluations cost more where a model is sure of answers that are wrong."""


def check(case: Case) -> Iterator[Finding]:
    """A warning."""
    accuracy, loss = Curve.of(case.evaluated("validation/accuracy")), Curve.of(case.validation_loss())
    if accuracy is None or len(accuracy) < FEWEST:
        return
    if case.fact("task") is None and (uneven := _too_cheap(case, accuracy, loss) or _one_answer(case, accuracy, loss)):
        yield uneven
        return
    if not classifies(case):
        return
    weighed = _by_weights(case, accuracy) or (None if loss is None else _weighed(case, accuracy, loss))
    if weighed is not None:
        yield weighed
        return
    level = float(accuracy.values[-1])
    one_class = of_one_class(case, accuracy)
    correlation = None if one_class is None else True
    if one_class is None:
        one_class = is_same(accuracy)
    streak = len(one_class) if one_class.all() else int(np.argmin(one_class[::-1]))
    # In a log that tells the accuracy alone one that is high may be of a model that is right everywhere.
    if streak < (FEWEST if correlation else FEWEST + 1) or (level > 0.97 and not correlation):
        return
    onset, last = int(accuracy.steps[-streak]), accuracy.last_step
    before = int(accuracy.steps[-streak - 1]) if streak < len(accuracy) else 0
    if was_thrown(case, before + 1, onset):
        return  # it answers alike ever after, whatever its classes
    if streak == len(accuracy):
        onset = min(onset, left_at(case, onset) or 1)
    if last < 0.25 * case.planned_steps or last - int(accuracy.steps[-streak]) < 0.1 * case.planned_steps:
        return
    part = None if loss is None else loss.between(onset, last)
    if correlation is None and (part is None or len(part) < FEWEST or float(np.ptp(part.values)) <= 1e-9):
        return  # evaluations that do not move at all are of weights that do not
    earlier = accuracy.values[:-streak]
    fell = max(FELL, 3.0 * noise_of_evaluations(earlier))
    if correlation is None and len(earlier) > len(accuracy) // 4 and level > float(earlier.max()) - fell:
        return  # it learned until there, and has come to rest: of one class it would have fallen back to its share
    training = Curve.of(case.loss())
    number, largest = num_classes(case), max(shares(case), default=None)
    guesses = number is not None and level < 1.0 / number + error_of_share(1.0 / number, judged_texts(case) or 300.0)
    if correlation is None and training is not None and training.end < LEARNED * training.start and not guesses:
        return  # it tells its training samples apart: what it says of a small set has come to rest
    if case.fact("task") is None and training is not None and training.values[0] > math.log(SO_MANY):
        return  # the most frequent token for all is what a text costs that is not read
    told = f"the validation accuracy is {level:.2%}, and so in the last {streak} evaluations, but for a text or two"
    evidence = [Evidence("validation/accuracy", (onset, last), level, largest, told)]
    if correlation:
        evidence.append(
            Evidence("validation/macro_f1", (onset, last), None, None, "macro-F1 is what a single class gives")
        )
    if largest is not None:
        told = f"the most frequent of {len(shares(case))} classes has {largest:.1%} of the training targets"
        evidence.append(Evidence("facts.targets.counts", (0, 0), largest, None, told))
    skewed = largest is not None and number is not None and largest > 2.0 / number
    weights = case.target == "trimtab" and skewed and case.setting("task.class_weights") != "balanced"
    yield Finding(
        CODE,
        "warning",
        0.9 if correlation else 0.65,
        onset,
        "every input gets the same class",
        tuple(evidence),
        remedies=(
            *([Remedy("weigh rare classes more", "trimtab", {"task.class_weights": "balanced"})] if weights else []),
            Remedy("try to learn a single batch by heart, at a tenth and at ten times the rate"),
            Remedy("choose by macro-F1, which a model of one class cannot raise"),
        ),
    )


def _by_weights(case: Case, accuracy: Curve) -> Finding | None:
    """Weights in the settings that leave one class nearly all of the loss, and answers that are hardly ever right."""
    weights, classes, counts = case.setting("task.class_weights"), case.fact("targets", "classes"), shares(case)
    if not isinstance(weights, Mapping) or not classes or len(classes) != len(counts):
        return None
    parts = [float(weights.get(name, 1.0)) * share for name, share in zip(classes, counts, strict=True)]
    at = int(np.argmax(parts))
    part = parts[at] / sum(parts) if sum(parts) > 0 else 0.0
    right = median(accuracy.values[len(accuracy) // 2 :])
    if part < ALL_OF_IT or counts[at] > 0.5 or right > counts[at] + LITTLE_MORE:
        return None
    name = printable(str(classes[at]), limit=60)
    told = (
        f"the weights in task.class_weights give {name} {part:.1%} of the loss, where it has {counts[at]:.1%} of the "
        "targets"
    )
    shown = f"the usual validation accuracy of the second half is {right:.1%}"
    return Finding(
        CODE,
        "warning",
        0.9,
        1,
        f"one class, {name}, weighs so much that the others are hardly learned",
        (
            Evidence("task.class_weights", (0, 0), part, counts[at], told),
            Evidence("validation/accuracy", (accuracy.first_step, accuracy.last_step), right, counts[at], shown),
        ),
        remedies=(Remedy("weigh classes by how rare they are", "trimtab", {"task.class_weights": "balanced"}),),
    )


def _one_answer(case: Case, accuracy: Curve, loss: Curve | None) -> Finding | None:
    """Of a log, whatever its classes: a training loss far too low for the accuracy on the same samples, or an accuracy
    that is the same in all evaluations, and a validation loss that lies far above the training loss in both.

    Right answers of plain cross-entropy are as many as in `_weighed`; but a training loss may be divided, or no
    cross-entropy at all. So evaluations must be far worse than guessing from first to last, and get no more right.
    """
    training, taught = Curve.of(case.loss()), Curve.of(case.history.get("train/accuracy"))
    if loss is None or training is None or case.setting("objective.name") not in (None, "cross_entropy"):
        return None
    begin = training.first_step + 0.5 * (training.last_step - training.first_step)
    seen, judged, right = (
        training.level(begin, math.inf),
        loss.level(begin, math.inf),
        median(accuracy.values),
    )
    if not 0.0 <= seen < FAR_BELOW * judged or not 0.0 < right < MOST_RIGHT:
        return None
    first = min(float(accuracy.values[0]), 1.0 if taught is None else taught.start)
    if float(loss.values.min()) < -WORSE * math.log(right) or accuracy.end > min(first + ALIKE, 2.0 * first):
        return None
    steps, least = (int(training.steps[0]), training.last_step), 2.0 * math.exp(-seen) - 1.0
    late = math.nan if taught is None else taught.level(begin, math.inf)
    if math.isfinite(late) and abs(late - right) < ALIKE and late < least - ALIKE:
        told = (
            f"the training loss is {seen:.2g}, which takes {least:.0%} of right answers at least, and {late:.0%} of "
            "its own samples are answered right"
        )
        evidence = Evidence("train/accuracy", steps, late, least, told)
    elif taught is None and len(accuracy) > 2 * FEWEST and is_same(accuracy).all():
        told = (
            f"the validation accuracy is {right:.2%} in all {len(accuracy)} evaluations, where the training loss is "
            f"{seen:.2g} and the validation loss {judged:.2g}"
        )
        evidence = Evidence("validation/accuracy", (accuracy.first_step, accuracy.last_step), right, None, told)
    else:
        return None
    return _cheap(0.85, _begin(training), "training loss", evidence)


def _too_cheap(case: Case, accuracy: Curve, loss: Curve | None) -> Finding | None:
    """Evaluations that answer one class for all, and cost less than their wrong answers do where all weigh the same."""
    right = median(accuracy.values)
    if loss is None or len(accuracy) <= 2 * FEWEST or not 0.0 < right < MOST_RIGHT or not is_same(accuracy).all():
        return None
    training = Curve.of(case.loss())
    if training is None or float(training.values.max()) < math.log(2.0) or right < RAREST:
        return None  # no cross-entropy: the accuracy of numbers is of the few that are met exactly
    least = math.log(2.0) * (1.0 - right)
    if not 0.0 <= loss.median < CHEAP * least:
        return None
    told = (
        f"the validation accuracy is {right:.2%} in all {len(accuracy)} evaluations, which costs {least:.2g} at least "
        f"where all answers weigh the same; the loss is {loss.median:.2g}"
    )
    steps = (accuracy.first_step, accuracy.last_step)
    return _cheap(0.85, 1, "loss", Evidence("validation/accuracy", steps, right, None, told))


def _weighed(case: Case, accuracy: Curve, loss: Curve) -> Finding | None:
    """A loss that is too low for its accuracy: right answers have a mean probability of exp(-loss) at least, and twice
    that less 1 of all answers are then right, at least, unless a class weighs more than others."""
    number, training = num_classes(case), Curve.of(case.loss())
    if number is None or number < 3 or training is None or len(accuracy) != len(loss):
        return None
    if abs(float(training.values[0]) - math.log(number)) > 0.2 or case.setting("objective.name") not in (
        None,
        "cross_entropy",
    ):
        return None
    least = 2.0 * np.exp(-loss.values) - 1.0
    wrong = (accuracy.values < least - 0.05) & (accuracy.values < 0.5)
    if wrong.sum() < 2:
        return None
    at = int(np.argmax(np.where(wrong, least - accuracy.values, -1.0)))
    step, value, share = int(loss.steps[at]), float(loss.values[at]), float(accuracy.values[at])
    told = (
        f"at step {step:,} the validation loss is {value:.3g}, which takes {least[at]:.0%} of right answers at least, "
        f"and {share:.0%} are right"
    )
    steps = (int(loss.steps[0]), loss.last_step)
    return _cheap(0.65, _begin(training), "loss", Evidence("validation/accuracy", steps, share, float(least[at]), told))


def _begin(training: Curve) -> int:
    return min(1, training.first_step) if training.from_start else training.first_step


def _cheap(confidence: float, onset: int, what: str, evidence: Evidence) -> Finding:
    return Finding(
        CODE,
        "warning",
        confidence,
        onset,
        f"most inputs get the class that weighs most: the {what} is low where answers are wrong",
        (evidence,),
        remedies=(Remedy("weigh classes less unevenly, at most by the inverse of how often they are there"),),
    )
