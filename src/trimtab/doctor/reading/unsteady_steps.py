"""Steps in which the loss may have jumped because of the weights, whatever their batches are."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.case import Case
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.once import once
from trimtab.runs.history import Series

RESTLESS: Final = 5
"""Steps before: where two of them had gradients of twice their usual size, the weights were unsteady."""
LEAST_WARMUP: Final = 5
GREW: Final = 2.0
"""Times its usual size: a gradient that tells so."""
BEFORE: Final = 15
"""Values that tell what is usual."""
LEFT: Final = 0.15
"""Of the height of a jump: in the step after a damaged batch less of it is left."""


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
            grew = int((near.values > GREW * around).sum()) >= 2
        if step <= until or grew:
            found.append(place)
    return np.array(found, np.int64)


def lasting_places(
    case: Case, series: Series, places: NDArray[np.int64], usual: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Those after which neither the loss nor the gradient is back in the next step, whose batch is another: of the
    height above `usual` a part is left, and gradients are larger than those before."""
    norms = Curve.of(case.history.get("grad_norm"))
    found = []
    for place in places.tolist():
        if norms is None or place + 1 >= len(series):
            continue
        step, following = int(series.steps[place]), int(series.steps[place + 1])
        before, after = norms.between(step - BEFORE * (following - step), step - 1), norms.between(following, following)
        left = float(series.mean[place + 1] - usual[place]) / max(float(series.mean[place] - usual[place]), 1e-12)
        if before is not None and after is not None and left > LEFT:
            found += [place] if float(after.values[0]) > GREW * before.median else []
    return np.array(found, np.int64)


def early_until(rates: Curve | None) -> int:
    """The last step at which a rise of the loss may come of the rate's first height; 0 without a warm-up."""
    return 0 if rates is None else _early_until(rates)


@once
def _early_until(rates: Curve) -> int:
    top = int(rates.steps[rates.values >= 0.99 * rates.lower_quantile(0.95)][0])
    return 2 * top if top >= LEAST_WARMUP and rates.values[0] < 0.5 * float(rates.values.max()) else 0
