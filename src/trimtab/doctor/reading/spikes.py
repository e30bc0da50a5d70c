"""Stretches in which the loss leaves and comes back: by the noise there, and by what the run gains as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from trimtab.doctor.reading.curves import (
    ERROR_OF_MEDIAN,
    Curve,
    Floats,
    below_trailing_median,
    local_noise,
    noise_of,
    running_median,
    trailing_median,
)
from trimtab.doctor.reading.evaluations import noise_of_evaluations

NOISES: Final = 8.0
NOW_AND_THEN: Final = 0.05
"""Of the losses elsewhere, that are half as high above what was usual."""
STRETCHES, FEWEST_STRETCHES = (5, 15), 12
"""Values whose medians tell how much levels wander, and how many such medians do."""
NEAR, CREPT = 4, 0.3
"""Values before a spike, and the part of its height that half of them have where it crept up."""
BELONG: Final = 1.5
"""Times what single steps explain: above, the losses of neighbours belong together."""


class Spike(NamedTuple):
    """Index of the first and the last value, how high it was, the level before, and the noise of a step there."""

    first: int
    last: int
    height: float
    usual: float
    noise: float


def spikes_of(curve: Curve, peaks: Floats, *, buckets: bool) -> list[Spike]:
    """The spikes after which the loss came back, by steps. Looked for in single values, and in medians of 5 and 15,
    since a low one that lasts is as sure as a high one that does not."""
    width = width_before(curve)
    usual: Floats | None = None
    below: Floats | None = None
    found: list[Spike] = []
    least = max(0.08 * curve.descent, 0.02 * abs(curve.end))
    wanders, begun = NOISES * _wandering(curve), max(8, len(curve) // 50)
    for scale in (1, 5, 15):
        if len(curve) < 6 * scale:
            break
        half = scale // 2
        # The largest of a bucket is held against the largest of the buckets before, and against their noise.
        by_peaks = scale == 1 and buckets
        values = peaks if scale == 1 else running_median(curve.values, scale)
        noises = NOISES * (1.0 if scale == 1 else ERROR_OF_MEDIAN / np.sqrt(scale))
        # Nowhere is the noise less than that of all steps, so that in most runs no more needs to be known of it.
        enough = max(noises * (noise_of(peaks) if by_peaks else curve.noise), wanders, least)
        low = below_trailing_median(peaks, width) if by_peaks else below
        if low is None:
            low = below = below_trailing_median(curve.values, width)
        if not (values[half:] - low[: len(low) - half] > enough)[max(begun - half, 0) :].any():
            continue
        if usual is None:
            usual = trailing_median(curve.values, width)
        level = trailing_median(peaks, width) if by_peaks else usual
        before = np.concatenate([np.full(half, np.nan), level])[: len(level)]
        excess = np.where(np.isfinite(before), values - before, 0.0)
        high = excess > enough
        high[:begun] = False
        if not high.any():
            continue
        noise = local_noise(peaks if by_peaks else curve.values, 2 * width, np.flatnonzero(high))
        high &= excess > noises * noise
        if scale == 1:
            high &= excess > _tail(excess, noise)
            high[high] = excess[high] > _usual_reach(excess, 4 * width, np.flatnonzero(high))
        spans = _spans(curve, values, before, high, noise)
        found += spans if scale == 1 else (one for one in spans if not _is_usual(curve, usual, one))
    return _merged(found)


def crept(curve: Curve, spike: Spike) -> bool:
    """Whether the last values before it were on their way up already: no jump, but the course of the loss."""
    before = curve.values[max(0, spike.first - NEAR) : spike.first]
    return (
        spike.last > spike.first
        and len(before) == NEAR
        and float(np.median(before)) > spike.usual + CREPT * spike.height
    )


def _wandering(curve: Curve) -> float:
    """How much levels of neighbouring stretches differ: more than single steps tell where noise comes and goes slowly,
    as of a loss that is averaged before it is logged, or of data whose difficulty changes bit by bit."""
    settled = curve.values[len(curve) // 8 :]
    found = 0.0
    for size in STRETCHES:
        num = len(settled) // size
        if num >= FEWEST_STRETCHES:
            levels = np.median(settled[len(settled) - num * size :].reshape(num, size), axis=1)
            wanders = noise_of_evaluations(levels)  # around a bend, which a descent has
            found = max(found, wanders if wanders > BELONG * curve.error(size) else 0.0)
    return found


def _is_usual(curve: Curve, usual: Floats, spike: Spike) -> bool:
    """Whether single losses elsewhere lie so high now and then, as where few samples cost much: then some of them in a
    row are chance. Those in a stretch that is high are not single."""
    settled = max(8, len(curve) // 8)
    excess = np.nan_to_num(curve.values - usual)
    single = (excess > 0.5 * spike.height) & (running_median(excess, 5) < 0.5 * spike.height)
    elsewhere = np.delete(single, np.r_[: min(settled, spike.first), spike.first : spike.last + 1])
    return float(elsewhere.mean()) > NOW_AND_THEN if len(elsewhere) else False


def _tail(excess: Floats, noise: Floats) -> Floats:
    """How far single values reach without being spikes: noise with heavy tails reaches as far down as up."""
    down = -float(excess[len(excess) // 5 :].min())
    return np.maximum(np.minimum(3.0 * float(np.quantile(excess, 0.98)), 20 * noise), 1.4 * down)


def _usual_reach(excess: Floats, width: int, places: NDArray[np.int64]) -> Floats:
    """Twice what one in twenty of the `width` values before each of `places` exceeds: batches of mixed difficulty
    reach so far."""
    reach = np.zeros(len(places))
    late = places >= width
    if late.any():
        windows = sliding_window_view(excess, width)[places[late] - width]
        reach[late] = 2.0 * np.quantile(windows, 0.95, axis=1)
    return reach


def _spans(
    curve: Curve,
    values: Floats,
    usual: Floats,
    high: NDArray[np.bool_],
    noise: Floats,
) -> Iterator[Spike]:
    """From where the loss leaves to where it is back near its level before, where it comes back at all."""
    index, width = 0, width_before(curve)
    while index < len(high):
        if not high[index]:
            index += 1
            continue
        level, last = float(usual[index]), index
        while last + 1 < len(high) and high[last + 1]:
            last += 1
        height = float(values[index : last + 1].max()) - level
        back = level + max(3 * curve.error(5), 0.25 * height)
        smooth = running_median(curve.values[index : index + len(high) // 3], 5)
        over = np.flatnonzero(smooth <= back)
        over = over[over > last - index]
        if len(over):
            last = max(last, index + int(over[0]) - 1)
            after = curve.values[last + 1 : last + 1 + width]
            if len(after) >= 3 and float(np.median(after)) <= level + max(4 * curve.error(len(after)), 0.4 * height):
                yield Spike(index, last, height, level, float(noise[index]))
        index = last + 2


def _merged(spikes: list[Spike]) -> list[Spike]:
    """Those that overlap joined into one: the longest stretch, the greatest height."""
    merged: list[Spike] = []
    for spike in sorted(spikes):
        if merged and spike.first <= merged[-1].last + 2:
            old = merged.pop()
            higher = max(old, spike, key=lambda one: one.height)
            spike = Spike(old.first, max(old.last, spike.last), higher.height, old.usual, higher.noise)
        merged.append(spike)
    return merged


def width_before(curve: Curve) -> int:
    """Values of whose median a spike is held against."""
    return max(15, len(curve) // 20)
