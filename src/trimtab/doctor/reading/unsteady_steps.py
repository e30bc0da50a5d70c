"""Steps in which the loss may have jumped because of the weights, whatever their batches are."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.case import Case
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.once import once

RESTLESS: Final = 5
"""Steps before: where two of them had gradients of twice their usual size, the weights were unsteady."""
LEAST_WARMUP: Final = 5


def unsteady_places(case: Case, steps: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those up to twice the warm-up, where the rate first meets the weights, and those before which gradients grew."""
    rates, norms = Curve.of(case.history.get("learning_rate")), Curve.of(case.history.get("grad_norm"))
    until = early_until(rates)
    found = []
    for place in places.tolist():
        step = int(steps[place])
        grew = False
        if norms is not None and (near := norms.between(step - RESTLESS, step - 1)) is not None:
            around = norms.level(step - 5 * RESTLESS, step + 5 * RESTLESS)
            grew = int((near.values > 2.0 * around).sum()) >= 2
        if step <= until or grew:
            found.append(place)
    return np.array(found, np.int64)


def early_until(rates: Curve | None) -> int:
    """The last step at which a rise of the loss may come of the rate's first height; 0 without a warm-up."""
    return 0 if rates is None else _early_until(rates)


@once
def _early_until(rates: Curve) -> int:
    top = int(rates.steps[rates.values >= 0.99 * rates.lower_quantile(0.95)][0])
    return 2 * top if top >= LEAST_WARMUP and rates.values[0] < 0.5 * float(rates.values.max()) else 0
