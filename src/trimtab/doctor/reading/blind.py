"""Whether the answers of a log are guesses: no better than chance, from the first evaluation to the last; and what
else than labels may be the reason."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.reading.classes import num_classes, prior_loss, shares, usual_loss
from trimtab.doctor.reading.curves import Curve, running_median
from trimtab.doctor.reading.evaluations import error_of_share, judged_texts, noise_of_evaluations
from trimtab.doctor.reading.medians import median

FEWEST: Final = 5
STANDS: Final = 0.975
"""Of the first validation loss, or of what guessing costs: one that never came below has gained nothing."""
NEAR_GUESS: Final = 0.9
"""Of what guessing costs, as far as the number of classes is known."""
AT_MOST: Final = 2.0
"""Times an even share: an accuracy that a most frequent class may have by itself."""
OF_TWO: Final = 0.15
"""More than an even share: the same of two classes."""
NEAR_LEVEL: Final = 0.05
"""Off what guessing among a whole number of classes costs."""
SURE: Final = 5.0
"""Errors by which a validation loss has improved, where something carries over."""
BY_HEART: Final = 0.75
"""Of what is known without any input: training losses below are of samples learned by heart."""
OF_TWO_KINDS: Final = 0.95
"""Separability of the two sets."""


@final
@dataclass(frozen=True, slots=True)
class BlindAnswers:
    """Evaluations that tell nothing: what a model gives that sees no input."""

    first: float
    lowest: float
    last: float
    """The validation loss at first, at best and in the last quarter."""
    level: float
    """What guessing costs."""
    stand: bool
    """Whether the loss ends where guessing leaves it, did not fall below by more than chance, and half of all
    evaluations and more differ in how many answers are right."""
    right: float
    """The median accuracy of the second half."""
    before: float
    chance: float
    steps: tuple[int, int]

    @property
    def in_words(self) -> str:
        """The accuracy as a sentence."""
        return f"the validation accuracy was {self.before:.1%} at first and is {self.right:.1%} in the second half"


def blind_answers(case: Case, validation: Curve) -> BlindAnswers | None:
    """The evaluations of a task of classes, where none of them is better than guessing; None where one is, or where
    there are too few to tell."""
    accuracy = Curve.of(case.evaluated("validation/accuracy"))
    number = None if accuracy is None else _guessed_among(case, accuracy, validation) or num_classes(case)
    if accuracy is None or number is None or min(len(accuracy), len(validation)) < FEWEST:
        return None
    if int(validation.steps[0]) > 0.25 * case.planned_steps:
        return None
    first, lowest = float(validation.values[0]), float(running_median(validation.values, 3).min())
    last = median(validation.values[-max(2, len(validation) // 4) :])
    level = prior_loss(case) or float(np.log(number))
    before, after = accuracy.values[:2], accuracy.values[len(accuracy) // 2 :]
    right, always = median(after), float(np.ptp(accuracy.values)) < 0.01
    most = max(shares(case), default=max(AT_MOST / number, 1.0 / number + OF_TWO if number < 3 else 0.0))
    if (
        min(first, level) - last > SURE * noise_of_evaluations(validation.values)
        or lowest < STANDS * min(first, level)
        or lowest < (0.8 * usual_loss(right, number) if always else NEAR_GUESS * level)
        or right > 0.9
        or (
            not always
            and max(right, float(before.max())) > most + 2.0 * error_of_share(most, judged_texts(case) or 300.0)
        )
        or right > float(before.max()) + max(0.02, 2.0 * noise_of_evaluations(accuracy.values))
    ):
        return None
    half = len(validation) // 2
    early, late = validation.values[:half], validation.values[half:]
    off, there = (3.0 * float(np.std(part)) / math.sqrt(len(part)) for part in (early, late))
    end = float(late.mean())
    fell = end < level - there and end < float(early.mean()) - math.hypot(off, there)
    # Where the same share is right again and again one class is said, whatever the input: no label tells of that.
    again = int(np.unique(np.round(accuracy.values, 6), return_counts=True)[1].max())
    stand = not fell and 2 * again < len(accuracy) and last < level / STANDS
    steps = (accuracy.first_step, accuracy.last_step)
    return BlindAnswers(first, lowest, last, level, stand, right, float(before.max()), 1.0 / number, steps)


def _guessed_among(case: Case, accuracy: Curve, validation: Curve) -> float | None:
    """So many classes that the loss is what guessing among them costs, and as many answers right as by guessing: both
    tell it where a first loss is off, as random weights are often sure of something."""
    if case.fact("targets", "classes") or case.number("num_classes") is not None:
        return None
    loss, right = (median(one.values[len(one) // 2 :]) for one in (validation, accuracy))
    number = round(math.exp(min(loss, 10.0)))
    even = 1.0 / max(number, 1)
    alike = abs(right - even) < 2.0 * error_of_share(even, judged_texts(case) or 300.0)
    return float(number) if number > 2 and alike and abs(loss - math.log(number)) < NEAR_LEVEL else None


def falls_below(training: Curve, level: float) -> float | None:
    """The training loss of the last quarter, where it lies below `level` and below that of the second quarter by more
    than chance; else None."""
    quarter = max(1, len(training) // 4)
    ends, second = training.values[-quarter:], training.values[quarter : max(quarter + 1, len(training) // 2)]
    low, middle = float(np.mean(ends)), float(np.mean(second)) if len(second) else float("inf")
    error = float(np.std(ends)) / float(np.sqrt(len(ends)))
    return low if low <= level - max(3.0 * error, 0.005 * level) and low <= middle - error else None


def is_learned_by_heart(training: Curve, level: float) -> bool:
    """Whether the training loss fell far below `level`, what is known without any input."""
    return min(float(training.smoothed.min()), training.end) < BY_HEART * level


def of_two_kinds(case: Case) -> bool:
    """Whether the two sets are told apart: what is learned of one kind need not carry over to the other, whatever its
    labels."""
    return (case.number("counting", "sets", "separability") or 0.0) > OF_TWO_KINDS


def hardly_moves(case: Case) -> bool:
    """Whether hardly anything was changed: rates are low, or gradients are 0, or parameters frozen."""
    norms, rates = Curve.of(case.history.get("grad_norm")), Curve.of(case.history.get("learning_rate"))
    still = norms is not None and median(norms.values) < 1e-6
    slowly = rates is not None and float(rates.values.max()) < 1e-5
    return still or slowly or (case.number("parameters", "frozen") or 0) > 0
