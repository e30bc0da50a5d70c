"""Where the curves of two runs part for good, by the noise of their difference."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.case import Case
from trimtab.doctor.compare.comparison import Parting
from trimtab.doctor.reading.curves import ERROR_OF_MEDIAN, Curve, local_noise, noise_of, running_median

FEWEST: Final = 6
"""Common steps below which nothing is said."""
ERRORS: Final = 4.0
"""Standard errors beyond which a smoothed difference is none of chance."""
LEAST_PART: Final = 0.005
"""Of the descent: less is of no interest."""
METRICS: Final = ("train/loss", "validation/loss", "learning_rate", "grad_norm")

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]


def partings_of(a: Case, b: Case) -> tuple[Parting, ...]:
    """Of loss, validation loss, learning rate and gradient norm, where both have them at the same steps."""
    found = []
    for metric in METRICS:
        series = [
            case.evaluated(metric) if metric.startswith("validation/") else case.history.get(metric) for case in (a, b)
        ]
        curves = [Curve.of(one) for one in series]
        if curves[0] is not None and curves[1] is not None:
            parting = parting_of(metric, curves[0], curves[1])
            if parting is not None:
                found.append(parting)
    return tuple(found)


def parting_of(metric: str, a: Curve, b: Curve) -> Parting | None:
    """Where two curves of a metric part; None with too few steps in common."""
    steps, values_a, values_b = common(a, b)
    if len(steps) < FEWEST:
        return None
    differences = values_b - values_a
    unequal = np.flatnonzero(differences != 0)
    same_until = int(steps[-1]) if not len(unequal) else int(steps[unequal[0] - 1]) if unequal[0] else 0
    if metric == "learning_rate":  # set, and not measured: it has no noise
        return _of_rates(steps, values_a, differences, same_until)
    width = int(np.clip(len(steps) // 20, 1, 25)) * 2 + 1
    noise = noise_of(differences)
    smooth = running_median(differences, width)
    error = ERRORS * ERROR_OF_MEDIAN * local_noise(differences, 2 * width) / np.sqrt(min(width, len(steps)))
    descent = max(a.descent, b.descent)
    # At the mirrored end a median is of half as many values.
    bound = np.maximum(error, LEAST_PART * descent if metric.endswith("loss") else 0.02 * float(np.median(values_a)))
    tail = differences[-max(3, len(steps) // 20) :]
    end = float(np.median(tail))
    beyond = (np.abs(smooth) > bound) & (np.sign(smooth) == np.sign(end))
    if not beyond[-1]:
        return Parting(metric, same_until, None, None, end, noise)
    inside = np.flatnonzero(~beyond)
    first = int(inside[-1]) + 1 if len(inside) else 0
    quiet = np.flatnonzero(np.abs(smooth[: first + 1]) <= 0.5 * bound[: first + 1])
    earliest = max(int(steps[quiet[-1]]) if len(quiet) else int(steps[0]), min(same_until, int(steps[first])))
    return Parting(metric, same_until, int(steps[first]), earliest, end, noise)


def _of_rates(steps: Steps, values: Floats, differences: Floats, same_until: int) -> Parting:
    apart = np.flatnonzero(np.abs(differences) > 0.01 * np.maximum(np.abs(values), 1e-12))
    first = int(steps[apart[0]]) if len(apart) else None
    return Parting("learning_rate", same_until, first, first, float(differences[-1]), 0.0)


def common(a: Curve, b: Curve) -> tuple[Steps, Floats, Floats]:
    """Both at the steps that both have; where a long run is kept in buckets, the coarser one's, interpolated."""
    steps, at_a, at_b = np.intersect1d(a.steps, b.steps, assume_unique=False, return_indices=True)
    if len(steps) >= 0.5 * min(len(a), len(b)):
        return steps, a.values[at_a], b.values[at_b]
    first, last = max(a.first_step, b.first_step), min(a.last_step, b.last_step)
    coarse = a if len(a) <= len(b) else b
    steps = coarse.steps[(coarse.steps >= first) & (coarse.steps <= last)]
    return steps, np.interp(steps, a.steps, a.values), np.interp(steps, b.steps, b.values)
