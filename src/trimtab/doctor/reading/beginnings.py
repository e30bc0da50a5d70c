"""What the first values of a log tell: a loss far above whatever a guess costs, and whether it began there."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.reading.classes import usual_loss
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.medians import median

FEWEST: Final = 12
LARGEST_VOCABULARY: Final = 1_000_000
SOON, FALLS = 0.2, 5.0
"""Part of the run, and times by which the loss has fallen by then."""
NEVER_BACK: Final = 3.0
"""Times below its first value, that it stays from there on: what comes again is in the data."""
UNSUSPECTED: Final = 5e-3
"""A rate at which no first updates throw a loss up."""
RESTS: Final = 1e5
"""Times below its first value, at which a loss that is no sum may come to rest."""
STEEP: Final = 20.0
"""Times the usual gradient."""
FAST: Final = 200.0
"""Times the rate, by which an output moves in a step. An optimizer that scales its steps moves each weight by the rate,
and an output by as much for each unit of usual size that it is a sum of, of which small layers have a hundred or two:
where it moves by more the numbers that are summed are large, and those are the inputs."""


MANY, BESIDE = 1e3, 1.25
"""Classes, and times the loss of answers among so many that know how often they are right: what a mean costs at most
once it has come down. A sum, or a loss with other terms, costs more."""


class HighStart(NamedTuple):
    """A first loss, what it came to, the step at which it was a quarter, how many times the rate outputs moved, and
    whether it is known to be the mean of a cross-entropy, as any sum begins as high."""

    first: float
    level: float
    quarter: int
    moved: float
    is_mean: bool

    @property
    def is_fast(self) -> bool:
        """Whether weights could not have moved outputs so soon with inputs of usual size."""
        return self.moved > FAST


def high_start(case: Case) -> HighStart | None:
    """The first loss of another trainer's log, where it is above the cost of guessing among a million, comes down soon
    and stays down, and no rate was high enough to have thrown it there."""
    curve, rates = Curve.of(case.loss()), Curve.of(case.history.get("learning_rate"))
    if curve is None or len(curve) < FEWEST or case.target == "trimtab" or case.counts_epochs:
        return None
    if case.fact("task") is not None or curve.first_step > 0.1 * case.planned_steps:
        return None
    highest = float(rates.values.max()) if rates is not None else 0.0
    first = float(curve.values[0])
    if not 0.0 < highest <= UNSUSPECTED or first <= math.log(LARGEST_VOCABULARY):
        return None
    rest = curve.between(curve.first_step + SOON * (curve.last_step - curve.first_step), curve.last_step)
    if rest is None or float(rest.values.max()) > first / NEVER_BACK:
        return None
    level = median(rest.values[: max(3, len(rest) // 8)])
    if level > first / FALLS:
        return None
    quarter = int(curve.steps[int(np.argmax(curve.values < first / 4))])
    moved = 0.5 * math.sqrt(first) / (highest * max(quarter, 1))
    # A sum rests as many times above its terms as it began: none is learned to so small a part at once, and no further.
    rests = first > RESTS * level and curve.end > level / 2
    return HighStart(first, level, quarter, moved, rests or is_mean(case, curve))


def is_mean(case: Case, curve: Curve) -> bool:
    """Whether a perplexity tells that a loss is the mean of a cross-entropy, or an accuracy on the same samples: in
    the end it costs no more than answers that are right as often, where a sum costs as many times more as it is of
    parts; or it fell further than any sum, from the dearest of guesses to the cheapest of answers that are right as
    often."""
    if case.history.has("validation/perplexity") or case.history.has("validation/bits_per_byte"):
        return True
    accuracy = Curve.of(case.history.get("train/accuracy"))
    end = curve.end
    if accuracy is None:
        accuracy, judged = Curve.of(case.evaluated("validation/accuracy")), Curve.of(case.validation_loss())
        if judged is None:
            return False
        end = judged.end
    if accuracy is None or float(accuracy.values.max()) > 1.0:
        return False
    right = min(accuracy.end, 0.999)
    fell = float(curve.values[0]) / max(end, 1e-9)
    furthest = math.log(LARGEST_VOCABULARY) / usual_loss(right, 2.0)
    return fell > furthest or end <= BESIDE * usual_loss(right, MANY)


def starts_steep(case: Case) -> bool:
    """Whether no rate is so high that the first updates throw a loss up; where none is known, whether the first
    gradient is many times what is usual later, as of sure answers that are wrong."""
    norms, rates = Curve.of(case.history.get("grad_norm")), Curve.of(case.history.get("learning_rate"))
    if rates is not None and float(rates.values.max()) > 0.0:
        return float(rates.values.max()) <= UNSUSPECTED
    return norms is not None and len(norms) >= 12 and float(norms.values[0]) > STEEP * median(norms.values)


def falls_from_the_first(case: Case, curve: Curve) -> bool:
    """Whether a log that begins some steps late begins at its highest, and goes on falling once it has come down: the
    first loss was higher still, and no step threw it up."""
    early = curve.values[: max(4, len(curve) // 10)]
    later = curve.first_step + 0.3 * (curve.last_step - curve.first_step)
    return (
        curve.first_step <= 0.05 * case.planned_steps
        and int(np.argmax(early)) == 0
        and (curve.end < 0.9 * curve.at(later) or starts_steep(case))
    )
