"""Where a loss jumps up at once and then falls over many steps: what is learned of one kind of sample when it comes."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.medians import median, quantile
from trimtab.doctor.reading.sliding import sliding_minimum

FEWEST: Final = 36
MANY: Final = 60
"""Values: of more a rise may take more of them, and a fall must."""
HEIGHT: Final = 0.25
"""Of the whole range of the loss: what a jump must have."""
BACK: Final = 0.4
"""Of a jump, that is left when it is over."""
EVEN, EVEN_OF_THREE = 0.2, 0.03
"""Of the distance from jump to jump, that it may deviate by; of three alone, which often come evenly by chance."""


class Jump(NamedTuple):
    """Index of the low before a jump, of the top after it, and of where it is over; both losses."""

    low_at: int
    top_at: int
    back_at: int
    low: float
    top: float


def jumps_of(curve: Curve, case: Case) -> list[Jump]:
    """Rises of the loss within few steps, each followed by a fall over more; none where the rate rose with it."""
    if len(curve) < FEWEST:
        return []
    values = curve.running_median(5 if len(curve) >= 200 else 3)
    height = max(HEIGHT * (quantile(values, 0.98) - float(values.min())), 6.0 * curve.noise)
    many = len(curve) >= MANY
    quick = max(6 if many else 3, len(curve) // 60)
    # A row of several steps may hold all of a rise, and two of them a fall over many.
    least = 4 if many else 3 if median(np.diff(curve.steps)) < 4.0 else 2
    found: list[Jump] = []
    lows = sliding_minimum(np.concatenate([np.full(quick, np.inf), values]), quick + 1)
    rises = np.flatnonzero(values - lows >= height)
    if not len(rises):
        return found
    each = values.tolist()
    low_at, index, is_least = 0, 1, True
    while index < len(values):
        # The low is the least of the last few: a rise that takes longer is none. After a jump it is where that ended,
        # until another one is as low, or it is too long ago.
        if is_least:
            later = int(rises.searchsorted(index))
            if later == len(rises):
                break
            index = int(rises[later])
        if is_least or each[index] <= each[low_at] or index - low_at > quick:
            start, is_least = max(0, index - quick), True
            low_at = start + int(values[start : index + 1].argmin())
        if each[index] - each[low_at] >= height:
            end = min(len(values), index + quick)
            top_at = index + int(values[index:end].argmax())
            falls = np.flatnonzero(values[top_at:] <= values[low_at] + BACK * (values[top_at] - values[low_at]))
            back_at = top_at + int(falls[0]) if len(falls) else len(values) - 1
            if back_at - top_at >= least and not _rate_rose(case, curve, low_at, top_at):
                found.append(Jump(low_at, top_at, back_at, float(values[low_at]), float(values[top_at])))
            index = low_at = max(back_at, top_at + 1)
            is_least = False
        index += 1
    return found


def _rate_rose(case: Case, curve: Curve, low_at: int, top_at: int) -> bool:
    rates = Curve.of(case.history.get("learning_rate"))
    if rates is None:
        return False
    first, last = (
        float(np.interp(curve.steps[place], rates.steps, rates.values)) for place in (max(0, low_at - 8), top_at)
    )
    return last > 1.3 * first


def are_even(jumps: list[Jump], fewest: int = 4) -> bool:
    """Whether so many jumps and more come at even distances; one that begins within another is not counted."""
    lows, until = list[int](), -1
    for one in jumps:
        if one.low_at >= until:
            lows.append(one.low_at)
        until = max(until, one.top_at)
    gaps = np.diff(lows)
    most = EVEN if len(lows) > 3 else EVEN_OF_THREE
    return len(lows) >= fewest and float(gaps.mean()) >= 8 and float(gaps.std()) < most * float(gaps.mean())


def ends_an_epoch(case: Case, curve: Curve, jump: Jump) -> bool:
    """Whether the data begins anew there, as far as is known."""
    passes, top = case.epochs(), int(curve.steps[jump.top_at])
    begins = round(passes * int(curve.steps[jump.low_at]) / case.history.last_step) if passes >= 2.0 else 0
    if begins < 1:
        return False
    low = int(curve.steps[max(jump.low_at - 1, 0)])
    return low <= begins * case.history.last_step / passes <= top
