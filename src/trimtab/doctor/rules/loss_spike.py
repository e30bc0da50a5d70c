"""loss-spike: the loss leaves and comes back.

Looks for: losses far above the median of the steps before, by the noise of the steps there, by what single steps reach
    there, by how much levels of stretches wander, and by a part of all that was gained, after which the loss returns.
    The median of the past makes a fast early descent invisible, and noise is that of the steps before, as a loss that
    scatters at first may lie flat in the end. Where single steps scatter too much to tell, and layers are measured:
    weights of all of them that jump between two updates, beside evaluations that rise with them and come back.
Why it matters: a spike costs the steps until it is made good, and often comes before a divergence.
Evidence: where, how high, how long, and what the gradient and the rate did there.
Remedy: skip such updates, clip lower, look at the batches of those steps; a lower rate when spikes come again.
False alarms: a step or two up to twice the warm-up, where the rate first is at its height: remarks. Data of mixed
    difficulty, whose hard batches look like spikes of one step: remarks, not warnings. A rate that rises again as the
    schedule plans (warm restarts, triangles) lifts the loss until it falls: a remark at most.
Source: own; Chowdhery et al. 2022, arXiv 2204.02311, section 5.1 for what spikes are like in large runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.bumps import bump_in_evaluations
from trimtab.doctor.reading.curves import (
    ERROR_OF_MEDIAN,
    Curve,
    below_trailing_median,
    local_noise,
    noise_of,
    running_median,
    trailing_median,
)
from trimtab.doctor.reading.evaluations import noise_of_evaluations
from trimtab.doctor.reading.planned import planned_factor
from trimtab.doctor.reading.thrown import thrown_once
from trimtab.doctor.reading.undone import undone
from trimtab.doctor.remedies import change, lower_rate
from trimtab.doctor.rules.corrupt_batch import early_until
from trimtab.runs import format
from trimtab.runs.history import Series

NOISES = 8.0
NOW_AND_THEN = 0.05
"""Of the losses elsewhere, that are half as high above what was usual."""
MOST_SHOWN = 5
STRETCHES, FEWEST_STRETCHES = (5, 15), 12
"""Values whose medians tell how much levels wander, and how many such medians do."""
BELONG = 1.5
"""Times what single steps explain: above, the losses of neighbours belong together."""
HARD_BATCHES = 3
"""So many single steps that stand out are the nature of the data."""
RESTORED = 1.05
"""Times the highest rate before: a restart of a schedule goes no higher."""
JUMPED = 1.5
"""So many times the rate of the step before: it was set, and did not rise by a schedule."""
NEAR = 8
"""Values by which the beginning of a spike is known."""


class Spike(NamedTuple):
    """Index of the first and the last value, how high it was, the level before, and the noise of a step there."""

    first: int
    last: int
    height: float
    usual: float
    noise: float


def check(case: Case) -> Iterator[Finding]:
    """A warning for spikes that are high, long or many; a remark for a small one."""
    yield from undone(case, "loss-spike")
    series = case.loss()
    assert series is not None
    curve = Curve.of(series)
    if curve is None or len(curve) < 24:
        return
    peaks = series.maximum[np.isfinite(series.mean)]
    spikes = _spikes(curve, peaks, buckets=series.width > 1)
    if not spikes:
        yield from list(thrown_once(case)) or _in_evaluations(case)
        return
    planned = _planned(case, curve, spikes)
    others = [spike for spike in spikes if spike not in planned]
    if not others:
        yield _as_planned(case, curve, planned)
        return
    spikes = others
    highest = max(spike.height for spike in spikes)
    longest = max(spike.last - spike.first + 1 for spike in spikes)
    part = highest / curve.descent if curve.descent > 0 else float("inf")
    changes = _adjusted(case, [(int(curve.steps[spike.first]), int(curve.steps[spike.last])) for spike in spikes])
    grave = (
        (part >= 0.2 and (longest >= 3 or len(spikes) >= 3))
        or any(spike.height >= 0.5 * curve.descent and spike.height > 12 * spike.noise for spike in spikes)
        or (part >= 0.1 and longest >= max(10, 0.02 * len(curve)))
        or bool(changes)
    )
    if longest < 3 and not changes:
        # The first meeting with the full rate: one step that is made good at once is no more than that.
        until = early_until(Curve.of(case.history.get("learning_rate")))
        grave = grave and any(int(curve.steps[spike.first]) > until for spike in spikes)
        # Where each of several is made good in the next step, no update did it: those batches are the harder ones.
        every = int(np.median(np.diff(curve.steps)))
        grave = grave and not (len(spikes) >= HARD_BATCHES and every <= 1)
    onset = int(curve.steps[spikes[0].first])
    last = int(curve.steps[spikes[0].last])
    length = f" and took {last - onset + 1:,} steps to come back" if last > onset else " and came back"
    again = f"; {len(spikes)} such spikes in all" if len(spikes) > 1 else ""
    remedies = [Remedy(f"look at the batches from step {onset:,} on, and leave them out if they are damaged")]
    if changes:
        remedies = [Remedy(f"take out what raised the learning rate at step {onset:,}: {changes}")]
    else:
        remedies += clipping(case)
    if len(spikes) >= 2:
        remedies.append(lower_rate(case, 0.5))
    yield Finding(
        "loss-spike",
        "warning" if grave else "info",
        0.9 if grave else 0.6,
        onset,
        f"the training loss jumped at step {onset:,}{length}{again}"
        + (f"; the learning rate did it: {changes}" if changes else ""),
        _evidence(case, curve, spikes),
        remedies=tuple(remedies),
    )


def _in_evaluations(case: Case) -> Iterator[Finding]:
    """A warning where evaluations tell what single steps hide."""
    bump = bump_in_evaluations(case)
    if bump is None:
        return
    steps = bump.onset, bump.last
    told = (
        f"the loss of the validation set and that of the training slice rose together by "
        f"{format.decimal(bump.height)} from {format.decimal(bump.usual)}, and were back by step {bump.last:,}"
    )
    yield Finding(
        "loss-spike",
        "warning",
        0.75,
        bump.onset,
        f"the loss jumped near step {bump.onset:,} and came back, as evaluations show: single steps scatter too much",
        (Evidence("validation/loss", steps, bump.usual + bump.height, bump.usual, told),),
        remedies=(
            Remedy(f"look at the batches from step {bump.onset:,} on, and leave them out if they are damaged"),
            *clipping(case),
        ),
    )


def _as_planned(case: Case, curve: Curve, spikes: list[Spike]) -> Finding:
    """A remark on spikes that the schedule's own rises explain."""
    onset = int(curve.steps[spikes[0].first])
    again = f"; {len(spikes)} such rises in all" if len(spikes) > 1 else ""
    name = case.setting("schedule.name")
    by = "whose schedule begins anew there" if name is None else f"as planned by schedule.name = {name}"
    return Finding(
        "loss-spike",
        "info",
        0.6,
        onset,
        f"the training loss rose at step {onset:,} with the learning rate, {by}, and came back{again}",
        _evidence(case, curve, spikes),
        remedies=(Remedy("where a rise costs more than it gains: a lower full rate, or a schedule that rises once"),),
    )


def _planned(case: Case, curve: Curve, spikes: list[Spike]) -> list[Spike]:
    """The spikes that begin where the planned rate rises again, having been as high before.

    Either the rate jumps there, or the loss came back as the rate fell: one that came back while the rate rose on has
    another cause.
    """
    factor = planned_factor(case)
    if factor is None:
        rates = Curve.of(case.history.get("learning_rate"))
        return [] if rates is None else [spike for spike in spikes if _restarts(rates, curve, spike)]
    factors = np.array([factor(step) for step in curve.steps.tolist()])
    found = []
    for spike in spikes:
        begin = max(spike.first - _width(curve), 0)
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


def _evidence(case: Case, curve: Curve, spikes: list[Spike]) -> tuple[Evidence, ...]:
    """Where the highest were, and how high."""
    norms = case.history.get("grad_norm")
    evidence = []
    for first, last, height, usual, noise in sorted(spikes, key=lambda spike: -spike.height)[:MOST_SHOWN]:
        steps = int(curve.steps[first]), int(curve.steps[last])
        evidence.append(
            Evidence(
                "train/loss",
                steps,
                usual + height,
                usual,
                f"the loss jumped from {format.decimal(usual)} to {format.decimal(usual + height)} "
                f"{_where(steps)}, {height / max(noise, 1e-12):.0f} times the noise of a step there"
                f"{_gradient(norms, steps)}",
            )
        )
    return tuple(evidence)


def _width(curve: Curve) -> int:
    """Values of whose median a spike is held against."""
    return max(15, len(curve) // 20)


def _spikes(curve: Curve, peaks: NDArray[np.float64], *, buckets: bool) -> list[Spike]:
    """The spikes after which the loss came back, by steps. Looked for in single values, and in medians of 5 and 15,
    since a low one that lasts is as sure as a high one that does not."""
    width = _width(curve)
    usual: NDArray[np.float64] | None = None
    below: NDArray[np.float64] | None = None
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


def _is_usual(curve: Curve, usual: NDArray[np.float64], spike: Spike) -> bool:
    """Whether single losses elsewhere lie so high now and then, as where few samples cost much: then some of them in a
    row are chance. Those in a stretch that is high are not single."""
    settled = max(8, len(curve) // 8)
    excess = np.nan_to_num(curve.values - usual)
    single = (excess > 0.5 * spike.height) & (running_median(excess, 5) < 0.5 * spike.height)
    elsewhere = np.delete(single, np.r_[: min(settled, spike.first), spike.first : spike.last + 1])
    return float(elsewhere.mean()) > NOW_AND_THEN if len(elsewhere) else False


def _tail(excess: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far single values reach without being spikes: noise with heavy tails reaches as far down as up."""
    down = -float(excess[len(excess) // 5 :].min())
    return np.maximum(np.minimum(3.0 * float(np.quantile(excess, 0.98)), 20 * noise), 1.4 * down)


def _usual_reach(excess: NDArray[np.float64], width: int, places: NDArray[np.int64]) -> NDArray[np.float64]:
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
    values: NDArray[np.float64],
    usual: NDArray[np.float64],
    high: NDArray[np.bool_],
    noise: NDArray[np.float64],
) -> Iterator[Spike]:
    """From where the loss leaves to where it is back near its level before, where it comes back at all."""
    index, width = 0, _width(curve)
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


def clipping(case: Case) -> list[Remedy]:
    """Half of the threshold in use; clipping at all where there is none; nothing for clips without a threshold."""
    name, now = case.setting("gradients.clip.name"), case.setting("gradients.clip.threshold")
    if name == "none":
        return [Remedy("clip the gradient to norm 1", case.target, {"gradients.clip.name": "norm"})]
    if name is not None and now is None:
        return []
    lower = min(0.5, now / 2) if isinstance(now, int | float) else 0.5
    return [change(case, "clip the gradient lower", clip=lower)]


def _where(steps: tuple[int, int]) -> str:
    return f"at step {steps[0]:,}" if steps[0] == steps[1] else f"at steps {steps[0]:,} to {steps[1]:,}"


def _gradient(norms: Series | None, steps: tuple[int, int]) -> str:
    curve = Curve.of(norms)
    if curve is None or (part := curve.between(*steps)) is None:
        return ""
    usual = float(np.median(curve.values))
    largest = float(part.values.max())
    return (
        f", and the gradient norm to {largest / usual:.0f} times its usual size"
        if usual > 0 and largest > 3 * usual
        else ""
    )


def _adjusted(case: Case, spans: list[tuple[int, int]]) -> str:
    """The jump of the rate that came just before a spike, in words; a warm-up rises step by step, and is none."""
    rates = Curve.of(case.history.get("learning_rate"))
    if rates is None or len(rates) < 8:
        return ""
    for first, last in spans:
        before = rates.level(first - 20, first - 4)
        there = rates.between(first - 3, last)
        if there is None or not np.isfinite(before) or before <= 0:
            continue
        near = rates.between(first - 4, last)
        jumped = near is not None and bool((near.values[1:] > JUMPED * near.values[:-1]).any())
        peak = float(there.values.max())
        if jumped and peak > 2 * before:
            return f"it had risen {peak / before:.0f}-fold, from {before:.2g} to {peak:.2g}"
    return ""
