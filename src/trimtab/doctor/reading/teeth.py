"""Whether a metric is a sum that is cleared every so many steps: it falls back, by far and at multiples of a period."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from trimtab.doctor.reading.curves import NORMAL, Curve
from trimtab.doctor.reading.medians import median

FEWEST: Final = 20
HALVES: Final = float(np.log(2.0))
"""On a logarithmic scale, by which it falls back from one row to the next."""
FAR: Final = 5.0
"""Times what rows differ by in between: six standard deviations, about."""
LONGEST: Final = 64
"""Steps between two that clear."""
FALLS_BACK: Final = 1.4
"""Times what it is then, that a sum was before it is cleared."""
SHARE: Final = 0.4
"""Of the changes of the norm, that a sawtooth must explain."""
SURE_SHARE: Final = 0.6
"""The same, of one that need not rise each time."""
FEWEST_FALLS: Final = 3
JUMPED: Final = 1.5
"""Times the rate of the row before: it was set anew."""
LOSS_TOO: Final = 3.0
"""The same of the loss: where that falls, too, the data take turns."""


class Teeth(NamedTuple):
    """The period in steps, how often it fell back, and how many times it was what it fell to, in the median."""

    period: float
    falls: int
    times: float


def sawtooth_of(norms: Curve) -> tuple[int, float, float] | None:
    """The period of a norm that rises and falls back, how much of its changes that is, and how far it rises."""
    if norms.first_step > 2 or len(norms) < 8 * 2 or (np.diff(norms.steps) != 1).any():
        return None
    values = np.log(norms.values)
    changes = np.diff(values)
    whole = float(np.square(changes - changes.mean()).mean())
    if whole <= 0:
        return None
    falls_back = int((changes < -np.log(FALLS_BACK)).sum())  # in half of the periods at least
    shortest = max(2, len(changes) // (2 * falls_back) if falls_back else len(changes))
    ones, least = np.ones(len(changes)), 0.99 * SHARE * whole
    for period in range(shortest, min(LONGEST, len(changes) // 8) + 1):
        num = len(changes) // period
        rows = changes[: num * period].reshape(num, period)
        sums = ones[:num].dot(rows)
        if sums.dot(sums) < least * period * num * num:
            continue  # of most, without their exact share
        share = float(np.square(rows.mean(axis=0)).mean()) / whole
        if share <= SHARE:
            continue
        profile = np.median(rows, axis=0)
        falls = int(np.argmin(profile))
        after = (falls + 1) % period
        times = float(np.exp(-profile[falls]))
        # The same phase falls nearly each time, and the next rises by up to one gradient more.
        always = min(float((rows[:, falls] < 0).mean()), float((rows[:, after] > 0).mean()) + 0.05)
        # A sum grows until it is cleared; batches of an epoch in a fixed order are larger and smaller in between.
        others = -float(np.minimum(np.delete(profile, falls), 0.0).sum()) < 0.25 * -float(profile[falls])
        if (
            times > FALLS_BACK
            and always > (0.9 if share < SURE_SHARE else 0.8)
            and 0.15 < profile[after] < 0.8
            and others
        ):
            return period, share, times
    return None


def teeth_of(curve: Curve, loss: Curve | None, rates: Curve | None = None) -> Teeth | None:
    """The teeth of a saw whose rows may be many steps apart; None where its falls are no further than rows differ, come
    at no multiples of a period counted from the first step, do not rise again, or go with those of the loss or with
    restarts of the rate."""
    if len(curve) < FEWEST or not (curve.values > 0).all():
        return None
    values = np.log(curve.values)
    changes = np.diff(values)
    falls = np.flatnonzero(changes < -HALVES)
    if len(falls) < FEWEST_FALLS or len(falls) > len(changes) // 4:
        return None
    number = np.arange(1, len(falls) + 1)
    least, most = float((curve.steps[falls] / number).max()), float((curve.steps[falls + 1] / number).min())
    if least > most or most * (len(falls) + 1) < curve.last_step:  # or it was cleared only for a while
        return None
    rest = np.delete(changes, falls)
    noise = NORMAL * median(np.abs(rest - median(rest)))
    if float(-changes[falls].max()) < FAR * noise:
        return None
    regained = values[falls[1:]] - values[falls[:-1] + 1]
    if not (regained > -changes[falls[1:]] / 2).all() or _falls_there(loss, curve, falls):
        return None
    if rates is not None:
        beside = np.interp(curve.steps, rates.steps, rates.values)
        if float((beside[falls + 1] > JUMPED * beside[falls]).mean()) > 0.5:
            return None  # lower rates have larger gradients
    return Teeth((least + most) / 2, len(falls), float(np.exp(median(-changes[falls]))))


def _falls_there(loss: Curve | None, curve: Curve, falls: np.ndarray[tuple[int], np.dtype[np.int64]]) -> bool:
    """Whether the loss falls where the metric does."""
    if loss is None or len(loss) < FEWEST or not (loss.values > 0).all():
        return False
    beside = np.diff(np.interp(curve.steps, loss.steps, np.log(loss.values)))
    noise = NORMAL * median(np.abs(beside - median(beside)))
    return median(beside[falls]) < -LOSS_TOO * noise
