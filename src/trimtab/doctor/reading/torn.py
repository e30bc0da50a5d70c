"""Stretches of a few steps whose batches are damaged, one after the other.

The loss of a step is taken before its update. Weights that an update threw are bad at the next step and mend over many,
each of which takes back a part of what is left; of damaged batches the loss is at its height at once, and gone with the
last of them. What is learned costs a guess at most; an answer to nonsense costs a guess at least.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.case import Case
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.levels import uniform_loss
from trimtab.doctor.reading.medians import median, quantile
from trimtab.doctor.reading.unsteady_steps import unsteady_places
from trimtab.runs.history import Series

MOST: Final = 8
"""Steps in a row: more of them are a part of the data."""
PARTLY: Final = 0.3
"""Of the height: a batch of which a part is damaged, as the first and the last one may be."""
WHOLLY: Final = 0.6
BACK: Final = 0.15
"""Of the height, that may be left in the second step after the last; the first may be damaged in a small part."""
NOISES: Final = 3.0
STANDS_OUT: Final = 2.0
"""Times its usual size: the gradient of such a batch."""
CALM: Final = 0.5
"""Of what the largest gradient there was above its usual size, that may be left in the step after the last."""
FAR: Final = 3.0
"""Times what 98 in 100 other steps stay below."""
AS_HIGH: Final = 0.7
"""Times the height of such a stretch: a single batch that is damaged as well."""
SAME_RATE, BEFORE = 1.05, 5
"""Times the rate of so many steps before: above that it had just risen."""


class Torn(NamedTuple):
    """Index of the first damaged batch, of the last, and of the one that cost most; how much that was above the level
    before."""

    first: int
    last: int
    top: int
    height: float


def torn_in(case: Case, series: Series) -> list[Torn]:
    """The stretches of two steps or more, where the loss and the gradient of each step are known; and with such a one
    single steps as high as it."""
    norms, curve = case.history.get("grad_norm"), Curve.of(series)
    if norms is None or curve is None or norms.width > 1 or not np.array_equal(norms.steps, series.steps):
        return []
    if len(curve) != len(series) or not curve.from_start or not np.isfinite(norms.mean).all():
        return []
    guess = uniform_loss(case) or curve.start
    if float(curve.values[len(curve) // 50 :].max()) < guess:
        return []  # as nearly always, without what follows
    found = _apart(curve, [one for one in _stretches(curve, guess) if _by_its_gradients(norms.mean, one)])
    rows = [one for one in found if one.last > one.first and not _changed(case, series, one)]
    unsteady = unsteady_places(case, series.steps, np.array([one.first for one in rows], np.int64))
    sure = [one for one in rows if one.first not in unsteady]
    if not sure:
        return []
    height = min(one.height for one in sure)
    return sorted(sure + [one for one in found if one.first == one.last and one.height >= AS_HIGH * height])


def _stretches(curve: Curve, guess: float) -> Iterator[Torn]:
    """Those that their losses tell: up at once, at the cost of a guess or more, and back at once."""
    values, width = curve.values, max(15, len(curve) // 20)
    usual = curve.trailing_median(width)
    left_out = np.zeros(len(values), np.bool_)
    left_out[: max(8, len(curve) // 50)] = True
    high = np.flatnonzero(values >= guess)
    for top in high[np.argsort(-values[high], kind="stable")].tolist():
        if left_out[top]:
            continue
        level, noise = float(usual[top]), curve.noise_at(top, 2 * width)
        height = float(values[top]) - level
        first, last = top, top
        while not left_out[first - 1] and values[first - 1] > level + PARTLY * height:
            first -= 1
        while last + 1 < len(values) and values[last + 1] > level + PARTLY * height:
            last += 1
        left_out[first : last + 1] = True
        after = values[last + 1 : last + 3] - level
        if (
            last - first < MOST
            and float(values[first : first + 2].max()) >= guess
            and bool((values[first + 1 : last] > level + WHOLLY * height).all())
            and len(after) == 2
            and float(after[1]) <= max(BACK * height, NOISES * noise)
        ):
            yield Torn(first, last, top, height)


def _apart(curve: Curve, found: list[Torn]) -> list[Torn]:
    """Those far above nearly all other steps: where errors are squared, or samples weighed, a few cost much anyway."""
    rest = np.ones(len(curve), np.bool_)
    rest[: max(8, len(curve) // 50)] = False
    for one in found:
        rest[one.first : one.last + 1] = False
    excess = (curve.values - curve.trailing_median(max(15, len(curve) // 20)))[rest]
    return [one for one in found if one.height > FAR * quantile(excess, 0.98)] if len(excess) else []


def _by_its_gradients(norms: NDArray[np.float64], one: Torn) -> bool:
    """Whether gradients stand out in it, and no longer: of weights that were thrown they do until these are mended."""
    usual = median(norms[max(0, one.first - 15) : one.first])
    largest = float(norms[one.first : one.last + 1].max())
    return largest > STANDS_OUT * usual and float(norms[one.last + 1]) - usual < CALM * (largest - usual)


def _changed(case: Case, series: Series, one: Torn) -> bool:
    """Whether the rate had just risen, or the run had just been resumed."""
    before, at = int(series.steps[max(0, one.first - BEFORE)]), int(series.steps[one.first])
    if any(start.resumed_from is not None and before <= start.resumed_from <= at for start in case.history.starts):
        return True
    rates = Curve.of(case.history.get("learning_rate"))
    there = None if rates is None else rates.between(before, at)
    return there is not None and float(there.values.max()) > SAME_RATE * float(there.values[0])
