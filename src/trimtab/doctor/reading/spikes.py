"""Stretches in which the loss leaves and comes back: by the noise there, and by what the run gains as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.reading.by_counting import is_beyond_usual, is_quiet, may_rise
from trimtab.doctor.reading.curves import ERROR_OF_MEDIAN, Curve, Floats, running_median
from trimtab.doctor.reading.evaluations import noise_of_evaluations
from trimtab.doctor.reading.medians import (
    are_medians_at_most,
    is_median_at_most,
    median,
    medians,
    quantile,
    windows,
)
from trimtab.doctor.reading.once import once

NOISES: Final = 8.0
NOW_AND_THEN: Final = 0.05
"""Of the losses elsewhere, that are half as high above what was usual."""
STRETCHES, FEWEST_STRETCHES = (5, 15), 12
"""Values whose medians tell how much levels wander, and how many such medians do."""
NEAR, CREPT = 4, 0.3
"""Values before a spike, and the part of its height that half of them have where it crept up."""
BELONG: Final = 1.5
"""Times what single steps explain: above, the losses of neighbours belong together."""
FEW: Final = 8
"""Single values that are quicker looked at one by one."""
SMOOTH: Final = 5
"""Values whose median tells that the loss is back."""
NEARBY: Final = 64
"""Values after a spike's first in which its end is looked for before all others are."""


class Spike(NamedTuple):
    """Index of the first and the last value, how high it was, and the level before; where, and in what it was seen."""

    first: int
    last: int
    height: float
    usual: float
    at: int
    seen: Curve

    @property
    def noise(self) -> float:
        """The noise of a step there."""
        return self.seen.noise_at(self.at, 2 * width_before(self.seen))


def spikes_of(curve: Curve, peaks: Floats, *, buckets: bool) -> list[Spike]:
    """The spikes after which the loss came back, by steps. Looked for in single values, and in medians of 5 and 15,
    since a low one that lasts is as sure as a high one that does not."""
    width = width_before(curve)
    found: list[Spike] = []
    least = max(0.08 * curve.descent, 0.02 * abs(curve.end))
    begun = max(8, len(curve) // 50)
    for scale in (1, 5, 15):
        if len(curve) < 6 * scale:
            break
        half = scale // 2
        # The largest of a bucket is held against the largest of the buckets before, and against their noise.
        single = Curve(curve.steps, peaks) if scale == 1 and buckets else curve
        noises = NOISES * (1.0 if scale == 1 else ERROR_OF_MEDIAN / np.sqrt(scale))
        # Nowhere is the noise less than that of all steps, so that in most runs no more needs to be known of it.
        low, enough = single.below_trailing_median(width), max(noises * single.noise, least)
        if scale == 15 and not may_rise(curve.values, curve.running_median(5), low, max(begun, half), enough):
            break
        values = single.values if scale == 1 else curve.running_median(scale)
        most = (values[half:] - low[: len(low) - half])[max(begun - half, 0) :]
        highest = float(most.max(initial=-np.inf))
        if not highest > enough or not highest > (enough := max(enough, NOISES * _wandering(curve))):
            continue
        # Of single values all tell how far they reach; of medians the level is wanted where one may be high.
        may = np.flatnonzero(most > enough) + max(begun - half, 0) if scale > 1 and buckets else None
        level = single.trailing_median(width, may)
        before = np.concatenate([np.full(half, np.nan), level])[: len(level)]
        excess = np.where(np.isfinite(before), values - before, 0.0)
        high = excess > enough
        high[:begun] = False
        reach = _reach(excess) if scale == 1 else (0.0, 0.0)
        high &= excess > _bound(single.noise, noises, reach)  # which the noise of no place is below
        places = np.flatnonzero(high)
        # Of most the noise is soon known to be little enough, and of the others it is then looked at.
        allowed = excess[places] / np.where(excess[places] > reach[0], noises, max(noises, 20.0))
        unsure = places[~is_quiet(single, 2 * width, places, allowed)]
        if len(unsure):
            noise = single.local_noise(2 * width, unsure)[unsure]
            high[unsure] = excess[unsure] > _bound(noise, noises, reach)
        if not high.any():
            continue
        if scale == 1:
            high[high] = is_beyond_usual(excess, 4 * width, np.flatnonzero(high))
        spans = _spans(curve, values, before, high, single)
        found += spans if scale == 1 else (one for one in spans if not _is_usual(curve, one))
    return _merged(found)


def crept(curve: Curve, spike: Spike) -> bool:
    """Whether the last values before it were on their way up already: no jump, but the course of the loss."""
    before = curve.values[max(0, spike.first - NEAR) : spike.first]
    return spike.last > spike.first and len(before) == NEAR and median(before) > spike.usual + CREPT * spike.height


@once
def _wandering(curve: Curve) -> float:
    """How much levels of neighbouring stretches differ: more than single steps tell where noise comes and goes slowly,
    as of a loss that is averaged before it is logged, or of data whose difficulty changes bit by bit."""
    settled = curve.values[len(curve) // 8 :]
    found = 0.0
    for size in STRETCHES:
        num = len(settled) // size
        if num >= FEWEST_STRETCHES:
            levels = medians(settled[len(settled) - num * size :].reshape(num, size))
            wanders = noise_of_evaluations(levels)  # around a bend, which a descent has
            found = max(found, wanders if wanders > BELONG * curve.error(size) else 0.0)
    return found


def _is_usual(curve: Curve, spike: Spike) -> bool:
    """Whether single losses elsewhere lie so high now and then, as where few samples cost much: then some of them in a
    row are chance. Those in a stretch that is high are not single."""
    elsewhere = np.ones(len(curve), np.bool_)
    elsewhere[: min(max(8, len(curve) // 8), spike.first)] = elsewhere[spike.first : spike.last + 1] = False
    half, num, width = 0.5 * spike.height, int(np.count_nonzero(elsewhere)), width_before(curve)
    # So few may lie so high at most, by what the level is nowhere below, that the level itself need not be known.
    if np.count_nonzero(elsewhere & ~(curve.values - curve.below_trailing_median(width) <= half)) <= NOW_AND_THEN * num:
        return False
    excess = np.nan_to_num(curve.values - curve.trailing_median(width))
    single = (excess > half) & (running_median(excess, 5) < half)
    return num > 0 and int(np.count_nonzero(single & elsewhere)) / num > NOW_AND_THEN


def _reach(excess: Floats) -> tuple[float, float]:
    """How far single values reach without being spikes: noise with heavy tails reaches as far down as up."""
    return 3.0 * quantile(excess, 0.98), -1.4 * float(excess[len(excess) // 5 :].min())


def _bound(noise: Floats | float, noises: float, reach: tuple[float, float]) -> Floats:
    """What a value must exceed where the noise is `noise`."""
    up, down = reach
    return np.maximum(np.maximum(np.minimum(up, 20 * noise), down), noises * noise)


def _spans(
    curve: Curve,
    values: Floats,
    usual: Floats,
    high: NDArray[np.bool_],
    seen: Curve,
) -> Iterator[Spike]:
    """From where the loss leaves to where it is back near its level before, where it comes back at all."""
    begin, width, three_errors = 0, width_before(curve), 3 * curve.error(SMOOTH)
    lone = _lone(curve, values, usual, high, seen)
    for index in np.flatnonzero(high).tolist():
        if index < begin:
            continue
        if index in lone:
            yield from lone[index]
            begin = index + 2
            continue
        level, last = float(usual[index]), index
        while last + 1 < len(high) and high[last + 1]:
            last += 1
        height = float(values[index : last + 1].max()) - level
        over = over_at(curve, slice(index, index + len(high) // 3), last + 1, level + max(three_errors, 0.25 * height))
        if over is not None:
            last = max(last, over - 1)
            after = curve.values[last + 1 : last + 1 + width]
            bound = level + max(4 * curve.error(len(after)), 0.4 * height)
            if len(after) >= 3 and is_median_at_most(after, bound):
                yield Spike(index, last, height, level, index, seen)
        begin = last + 2


def _lone(
    curve: Curve, values: Floats, usual: Floats, high: NDArray[np.bool_], seen: Curve
) -> dict[int, tuple[Spike, ...]]:
    """What `_spans` yields of single values after which the loss is back at once, as after most: of all together."""
    width = width_before(curve)
    num = max(len(high) - width, 0)
    places = np.flatnonzero(high[:num] & ~high[1 : num + 1])
    if len(places) < FEW:
        return {}
    level = usual[places]
    height = values[places] - level
    first, second, third, fourth = (curve.values[places + after] for after in range(4))
    back = medians(np.stack([second, first, second, third, fourth], axis=1)) <= level + np.maximum(
        3 * curve.error(SMOOTH), 0.25 * height
    )
    places, level, height = places[back], level[back], height[back]
    bound = level + np.maximum(4 * curve.error(width), 0.4 * height)
    stays = are_medians_at_most(windows(curve.values, width)[places + 1], bound)
    found = zip(places.tolist(), height.tolist(), level.tolist(), stays.tolist(), strict=True)
    return {at: (Spike(at, at, above, before, at, seen),) if back else () for at, above, before, back in found}


def over_at(curve: Curve, part: slice, first: int, bound: float) -> int | None:
    """The index, from `first` on, where the running median of a part of the curve comes down to `bound`.

    Inside it is that of the whole curve; two values at either end are not. Most are found soon.
    """
    values, smooth = curve.values[part], curve.running_median(SMOOTH)
    begin = int(part.start)
    end, edge = begin + len(values), SMOOTH // 2
    if len(values) >= 2 * SMOOTH:
        few = values[:SMOOTH].tolist()
        for at in range(first - begin, edge):
            if sorted(few[abs(near)] for near in range(at - edge, at + edge + 1))[edge] <= bound:
                return begin + at
        inside = max(first, begin + edge)
        if inside < end - edge and smooth[inside] <= bound:
            return inside
        for until in (min(inside + NEARBY, end - edge), end - edge):
            over = np.flatnonzero(smooth[inside:until] <= bound)
            if len(over):
                return inside + int(over[0])
        first = max(first, end - edge)
        values, begin = values[-SMOOTH:], end - SMOOTH
    over = np.flatnonzero(running_median(values, SMOOTH)[max(first - begin, 0) :] <= bound)
    return max(first, begin) + int(over[0]) if len(over) else None


def _merged(spikes: list[Spike]) -> list[Spike]:
    """Those that overlap joined into one: the longest stretch, the greatest height."""
    merged: list[Spike] = []
    for spike in sorted(spikes, key=itemgetter(slice(4))):
        if merged and spike.first <= merged[-1].last + 2:
            old = merged.pop()
            higher = max(old, spike, key=lambda one: one.height)
            spike = Spike(old.first, max(old.last, spike.last), higher.height, old.usual, higher.at, higher.seen)
        merged.append(spike)
    return merged


def width_before(curve: Curve) -> int:
    """Values of whose median a spike is held against."""
    return max(15, len(curve) // 20)
