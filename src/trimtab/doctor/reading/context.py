"""Language models that see no more than one token: their loss comes to rest where counts of pairs are."""

from __future__ import annotations

from typing import Final

from trimtab.doctor.case import Case
from trimtab.doctor.reading.curves import Curve

GAINED: Final = 0.01
"""Of the whole descent, in the second half."""
OFF: Final = 0.03
"""Of the yardstick."""
FAST: Final = 0.3
"""Of the highest rate, that of the middle: it did not come to rest because the rate was gone."""
FEWEST: Final = 6
"""Evaluations."""


def rests_at_pairs(case: Case, training: Curve, bigram: float) -> bool:
    """Whether evaluations lie where counts of pairs do from the middle of the run on, at a rate that is still high."""
    judged, rates = Curve.of(case.validation_loss()), Curve.of(case.history.get("learning_rate"))
    if judged is None or rates is None or len(judged) < FEWEST:
        return False
    middle = (training.first_step + training.last_step) / 2
    later = judged.between(middle, judged.last_step)
    if later is None or len(later) < FEWEST // 2 or rates.at(int(middle)) < FAST * float(rates.values.max()):
        return False
    gained = float(later.values.max()) - float(later.values.min())
    return gained < GAINED * training.descent and abs(float(later.values[-1]) - bigram) < OFF * bigram
