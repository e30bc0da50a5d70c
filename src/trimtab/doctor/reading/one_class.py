"""Which evaluations say one class, whatever is asked."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.case import Case
from trimtab.doctor.reading.classes import num_classes, shares
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.evaluations import error_of_share, judged_texts

SAME: Final = 1e-6
LIKE_ONE: Final = 1.2
"""Times the macro-F1 of a single class: a few texts may get another."""
HARDLY_MORE: Final = 1.4
"""Times the same: a model that said one class, and says a few others, as little to the purpose."""
MOST_OF_ALL: Final = 0.85
RARE: Final = 0.4
"""Macro-F1 of a model that hardly ever says a rare class."""
UNRELATED: Final = 0.1
"""Correlation of answers and classes."""


def of_one_class(case: Case, accuracy: Curve) -> NDArray[np.bool_] | None:
    """Which evaluations say one class, but for a few: their macro-F1 is what one class gives, and answers and classes
    hardly go together; None where that was not measured."""
    correlation, score = Curve.of(case.evaluated("validation/mcc")), Curve.of(case.evaluated("validation/macro_f1"))
    number = num_classes(case)
    if score is None or number is None or len(score) != len(accuracy):
        return None
    expected = 2.0 * accuracy.values / (1.0 + accuracy.values) / number
    alike: NDArray[np.bool_] = score.values < LIKE_ONE * expected
    if correlation is not None and len(correlation) == len(accuracy):
        # The mean is over the classes that occur, which may be fewer; a correlation of exactly 0 is of one answer.
        alike = (alike & (np.abs(correlation.values) < UNRELATED)) | (np.abs(correlation.values) < SAME)
        if float(alike.mean()) >= 1 / 3:  # what comes after may say a few others, as little to the purpose
            still = (score.values < HARDLY_MORE * expected) & _near_a_share(case, accuracy)
            alike |= (np.abs(correlation.values) < UNRELATED) & still
    # Where one class has nearly all texts, a text or two of another change all figures but these.
    largest = max(shares(case), default=0.0)
    if largest > MOST_OF_ALL:
        alike |= (score.values < RARE) & (accuracy.values < largest + 0.02)
    return alike


def _near_a_share(case: Case, accuracy: Curve) -> NDArray[np.bool_]:
    """Which accuracies are what always saying some class may give; all where the shares are not known."""
    known, texts = shares(case), judged_texts(case) or 100.0
    near = [np.abs(accuracy.values - share) < 3.0 * error_of_share(share, texts) for share in known]
    found: NDArray[np.bool_] = np.logical_or.reduce(near) if near else np.ones(len(accuracy), np.bool_)
    return found


def is_same(accuracy: Curve) -> NDArray[np.bool_]:
    """Which evaluations have as many right answers as the last, to the last digit."""
    same: NDArray[np.bool_] = np.abs(accuracy.values - accuracy.values[-1]) < SAME
    return same
