"""What the rate explains: spikes where it rises again as planned (warm restarts, triangles, cycles), and losses that a
burst of it threw up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.case import Case
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.medians import median
from trimtab.doctor.reading.planned import planned_factor
from trimtab.doctor.reading.spikes import Spike, width_before

RESTORED: Final = 1.05
"""Times the highest rate before: a restart of a schedule goes no higher."""
AGAIN: Final = 1.01
"""Times the rate of the row before: it rises."""
JUMPED: Final = 1.5
"""So many times the rate of the step before: it was set, and did not rise by a schedule."""
BURST, BRIEF = 3.0, 0.02
"""Times the rate before and after; and the part of the rates that a burst takes at most, or `NEAR` of them."""
REGAINED: Final = 0.75
"""Of what a burst threw the loss up: from there on it is coming back."""
NEAR: Final = 8
"""Values by which the beginning of a spike is known."""
FEWEST: Final = 16


def by_plan(case: Case, curve: Curve, spikes: list[Spike]) -> list[Spike]:
    """The spikes that begin where the planned rate rises again, having been as high before.

    Either the rate jumps there, or the loss came back as the rate fell: one that came back while the rate rose on has
    another cause.
    """
    factor = planned_factor(case)
    if factor is None:
        rates = Curve.of(case.history.get("learning_rate"))
        return [] if rates is None else [spike for spike in spikes if _restarts(rates, curve, spike)]
    factors = factor.along(curve.steps)
    rises, falls = (np.flatnonzero(signs) for signs in (factors[1:] > factors[:-1], factors[1:] < factors[:-1]))
    if not len(rises) or not len(falls) or rises[-1] < falls[0]:
        return []  # it rises once, and falls
    found = []
    for spike in spikes:
        begin = max(spike.first - width_before(curve), 0)
        lowest_at = begin + int(factors[begin : spike.first + 1].argmin())
        lowest, peak = factors[lowest_at], factors[spike.first : spike.last + 1].max()
        again = min(peak, factors[: lowest_at + 1].max()) > 1.25 * lowest
        before, there = factors[max(spike.first - NEAR, 0) : spike.first + 1], factors[spike.first :][: NEAR + 1].max()
        jumps = there > max(2 * before.min(), 0.5 * factors[: spike.first + 1].max())
        fell = factors[min(spike.last + 1, len(factors) - 1)] < peak
        if again and (jumps or fell):
            found.append(spike)
    return found


def _restarts(rates: Curve, curve: Curve, spike: Spike) -> bool:
    """Whether the rate that was logged had fallen, jumps back to its height at a spike's beginning, and falls again by
    steps: the restart of a schedule. A burst ends as abruptly as it began, or goes higher than the rate ever was."""
    first, last = int(curve.steps[spike.first]), int(curve.steps[spike.last])
    begin = int(curve.steps[max(spike.first - NEAR, 0)])
    jumps = np.flatnonzero(rates.values[1:] > JUMPED * rates.values[:-1]) + 1
    jumps = jumps[(rates.steps[jumps] >= begin) & (rates.steps[jumps] <= last)]
    if len(jumps) != 1 or int(rates.steps[jumps[0]]) > first + NEAR:
        return False
    at = int(jumps[0])
    before, after = rates.values[:at], rates.values[at : at + max(NEAR, len(rates) // 20)]
    fell = len(before) >= NEAR and float(before[-1]) < before.max() / JUMPED
    held = len(after) >= NEAR and bool((after[1:] > after[:-1] / JUMPED).all())
    return fell and held and float(after.max()) <= RESTORED * float(before.max())


def rises_again(rates: Curve | None, steps: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Between which of neighbouring steps the rate rises to no more than it has been before: shape (steps - 1).

    A schedule in cycles does, and lifts the loss of evaluations there as that of training."""
    if rates is None or len(rates) < NEAR:
        return np.zeros(max(len(steps) - 1, 0), dtype=np.bool_)
    highest = np.maximum.accumulate(rates.values)
    again = np.r_[False, (rates.values[1:] > AGAIN * rates.values[:-1]) & (rates.values[1:] <= RESTORED * highest[:-1])]
    num_before = np.searchsorted(rates.steps, steps, side="right")
    between: NDArray[np.int64] = np.diff(np.r_[0, np.cumsum(again)][num_before])
    return between > 0


def in_cycles(rates: Curve | None) -> bool:
    """Whether the rate, having been at its height, falls and rises again: there is no one stretch at a high rate."""
    if rates is None or len(rates) < NEAR:
        return False
    after = rates.values[int(np.argmax(rates.values >= rates.values.max() / RESTORED)) :]
    return bool((after > JUMPED * np.minimum.accumulate(after)).any()) and float(after.min()) * JUMPED < after[0]


def thrown_by_burst(case: Case, curve: Curve) -> bool:
    """Whether a burst of the rate threw the loss to its highest, and most of that is made good since: it comes back, as
    the rate did, however far it still has to go."""
    rates = Curve.of(case.history.get("learning_rate"))
    if rates is None or len(rates) < FEWEST:
        return False
    brief = max(NEAR, int(BRIEF * len(rates)))
    for at in np.flatnonzero(rates.values[1:] > BURST * rates.values[:-1]) + 1:
        before, after = float(rates.values[at - 1]), rates.values[at + 1 : at + 1 + brief]
        earlier = curve.between(curve.first_step, rates.steps[at - 1])
        later = curve.between(rates.steps[at], curve.last_step)
        if earlier is None or later is None or before <= 0 or not (after < before * JUMPED).any():
            continue
        usual, top = median(earlier.values[-2 * NEAR :]), int(np.argmax(later.values))
        height = float(later.values[top]) - usual
        if height > earlier.descent and later.values[top] - curve.end > REGAINED * height:
            return True
    return False


def raised_before(rates: Curve | None, spans: Sequence[tuple[int, int]]) -> tuple[float, float] | None:
    """The rate before and after the jump that came just before one of these spans; a warm-up rises step by step, and is
    none."""
    if rates is None or len(rates) < 8:
        return None
    jumps = np.flatnonzero(rates.values[1:] > JUMPED * rates.values[:-1])
    jumps = jumps[rates.steps[jumps] >= min(spans)[0] - 4]
    if not len(jumps):
        return None
    steps = list(zip(rates.steps[jumps].tolist(), rates.steps[jumps + 1].tolist(), strict=True))
    for first, last in spans:
        if not any(first - 4 <= begin and end <= last for begin, end in steps):
            continue
        if (there := rates.between(first - 3, last)) is None:
            continue
        before, peak = rates.level(first - 20, first - 4), float(there.values.max())
        if 0 < before < 0.5 * peak:
            return before, peak
    return None
