"""Which of loss and gradient led where a loss left for good: how much each had grown when the loss was clearly away."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from trimtab.doctor.reading.curves import Curve, noise_of, running_median
from trimtab.doctor.reading.medians import median

SPARSE: Final = 60
"""Values, of which each counts: more are smoothed."""
AWAY: Final = 1.5
"""Times its lowest, for good, that a loss is which has left."""
NOISES: Final = 4.0
OUTRUNS: Final = 3.0
"""Times as much as the loss must the gradient have grown there, to have led: that of a loss that led is at most of the
order of the loss itself, as squared errors have a gradient like their root, and probabilities one that is bounded."""
SCATTER: Final = 2.0
"""Of single norms, on a logarithmic scale, besides."""
GROWN: Final = 10.0
"""Times the usual, of the gradient there."""
CALM: Final = 2.0
"""Times the usual: up to there it had not begun to grow."""


class Lead(NamedTuple):
    """Where the gradient began to grow and the loss was away, what was usual of both, and what they were there."""

    began: int
    left: int
    usual_norm: float
    norm: float
    usual_loss: float
    loss: float


def lead_of_gradient(loss: Curve, validation: Curve | None, norms: Curve) -> Lead | None:
    """What led to a loss that stays away to the last value, in training or as evaluations saw it before, if that is the
    gradient; else None."""
    seen = [away for away in (_away(loss), None if validation is None else _away(validation)) if away is not None]
    if not seen or seen[0].of is not loss:
        return None
    away = min(seen, key=lambda one: one.left)
    near = 1 if len(norms) < SPARSE else 5
    quiet, until = norms.values[norms.steps <= away.lowest], norms.values[norms.steps <= away.left]
    if len(quiet) < 2 or len(until) <= len(quiet) or not (until > 0).all():
        return None
    usual, norm = median(quiet), median(until[-near:])
    scatter = float(np.exp(SCATTER * noise_of(np.log(quiet))))
    if norm < GROWN * usual or norm / usual < OUTRUNS * scatter * away.height / away.base:
        return None
    calm = np.flatnonzero((until if near == 1 else running_median(until, near)) < CALM * usual)
    began = int(norms.steps[min(int(calm[-1]) + 1, len(until) - 1)]) if len(calm) else norms.first_step
    return Lead(began, away.left, usual, norm, away.base, away.height)


class _Away(NamedTuple):
    """A loss that left for good: where it was lowest, what it was there, where it was clearly away, and how high."""

    of: Curve
    lowest: int
    base: float
    left: int
    height: float


def _away(loss: Curve) -> _Away | None:
    late = running_median(loss.values[-2 * loss.width :], loss.width, np.arange(-3, 0)) if len(loss) >= SPARSE else None
    if late is not None and 0 < float(late.min()) <= (1 - 1e-9) * AWAY * loss.floor:
        return None  # as most often, without all of it
    values = loss.values if len(loss) < SPARSE else loss.smoothed
    lowest = int(np.argmin(values))
    if lowest < 2 or lowest > len(values) - 4:
        return None
    base = float(np.mean(values[lowest - 2 : lowest + 1]))
    if not base > 0 or float(values[-3:].min()) <= AWAY * base:
        return None
    noise = noise_of(loss.values[: lowest + 1])
    bound = max(AWAY * base, base + max(NOISES * noise, 0.05 * max(loss.start - base, 0.0)))
    below = int(np.flatnonzero(values <= bound)[-1])
    if below >= len(values) - 3:
        return None
    return _Away(loss, int(loss.steps[lowest]), base, int(loss.steps[below + 1]), float(values[below + 1]))
