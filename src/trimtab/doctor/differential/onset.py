"""Where a fault begins to show that no rule placed."""

from __future__ import annotations

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.differential.loss import smooth
from trimtab.doctor.reading.curves import Curve

_TURNS = ("overfitting", "overconfident", "validation-regression")
_LEAVES = ("divergence", "loss-spike", "corrupt-batch", "exploding-gradients", "nan-loss", "resume-discontinuity")


def onset_of(code: str, case: Case) -> int:
    """The best evaluation of what turns, the largest rise of what leaves, the end of the rate; else the first step."""
    loss, judged = Curve.of(case.loss()), Curve.of(case.validation_loss())
    if loss is None:
        return 1
    series, rates = case.loss(), Curve.of(case.history.get("learning_rate"))
    if code in _TURNS and judged is not None:
        return int(judged.steps[judged.values.argmin()])
    if code == "nan-loss" and series is not None and series.first_bad_step is not None:
        return series.first_bad_step
    if code in _LEAVES and len(loss) >= 2:
        above = loss.values[1:] - np.minimum.accumulate(smooth(loss.values))[:-1]
        return int(loss.steps[1 + int(np.diff(loss.values)[: 1 + int(above.argmax())].argmax())])
    if code == "decayed-too-early" and rates is not None:
        low = np.flatnonzero(rates.values <= 0.1 * float(rates.values.max()))
        after = low[low > int(rates.values.argmax())]
        return int(rates.steps[after[0]]) if len(after) else loss.first_step
    if code == "plateau":
        smoothed = smooth(loss.values)
        lowest = float(smoothed.min())
        return int(loss.steps[np.flatnonzero(smoothed <= lowest + 0.1 * max(loss.start - lowest, 0.0))[0]])
    return loss.first_step
