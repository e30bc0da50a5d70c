"""Where a gradient grows, whether the loss follows it, and what else makes both large."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.reading.curves import Curve, noise_of, running_median
from trimtab.doctor.reading.medians import is_median_at_most, median
from trimtab.runs import format

GROWN: Final = 10.0
BEGINS: Final = 2.0
"""Times the usual: there it began to grow."""
STAYS: Final = 3
"""Values for which it must be so large, or to the last."""
LEADS: Final = 2.5
"""Times the usual, of the gradient where the validation loss leaves."""
CLEARLY: Final = 0.01
"""Of the lowest validation loss, that one must lie above it to be no tie."""
OUTGROWS: Final = 100.0
"""Times as much as the loss must the gradient grow, to be what explodes where both begin together."""
JUST: Final = 0.05
"""Of the run, before the growth."""
NOISES: Final = 4.0
"""Of single norms, on a logarithmic scale."""


class Growth(NamedTuple):
    """Where the norm began to grow, where it was ten times as large, what was usual, and the largest."""

    began: int
    large: int
    usual: float
    largest: float


def growths(norms: Curve | None, broken: int | None) -> Iterator[Growth]:
    """Where the norm came to ten times its usual size and stayed large for a while, in the order of the steps."""
    if norms is None or len(norms) < 12:
        return
    width = 1 if broken is not None and len(norms) < 60 else STAYS
    values = np.log(np.maximum(norms.values, 1e-30))
    smooth = values if width == 1 else np.minimum.reduce([values[k : len(values) - 2 + k] for k in range(3)])
    settled = max(6, len(smooth) // 12)  # what the first steps are like says nothing of the rest
    if len(smooth) <= settled + 2:
        return
    begun = median(norms.values[:settled])  # a norm that comes back to that had only been small
    told = -1
    risen = smooth[1:] - np.minimum.accumulate(smooth)[:-1] > np.log(GROWN)
    for at in (np.flatnonzero(risen[settled - 1 :]) + settled).tolist():
        before = values[max(0, at - max(40, len(values) // 3)) : at]
        earlier = before[: max(6, 3 * len(before) // 4)]
        whole = values[min(settled, at - 6) : at]  # of a growth that is slow the stretch before has grown, too
        low = float(smooth[at]) - np.log(GROWN) + 1e-9
        if not is_median_at_most(earlier, low) and not is_median_at_most(whole, low):
            continue  # as most often, without the medians themselves
        usual = min(median(earlier), median(whole))
        if smooth[at] - usual > np.log(GROWN):
            noise = noise_of(before)
            after = values[at:]
            stays = len(after) <= STAYS or median(after[: max(10, len(values) // 20)]) - usual > np.log(GROWN) / 2
            if smooth[at] - usual < NOISES * noise or not stays:
                continue
            calm = np.flatnonzero(values[:at] - usual < np.log(BEGINS))
            began = int(calm[-1]) + 1 if len(calm) else 0
            largest = float(np.exp(after[: max(10, len(values) // 10)].max()))
            if began != told and float(np.exp(smooth[at : at + max(10, len(values) // 10)].max())) > begun:
                yield Growth(int(norms.steps[began]), int(norms.steps[at]), float(np.exp(usual)), largest)
                told = began


def comes_and_goes(norms: Curve, growth: Growth) -> bool:
    """Whether the norm is near its usual size again and again after it was large, and large again in between: what
    comes in turns is in the data."""
    after = norms.values[norms.steps > growth.large]
    high, low = after > 0.5 * GROWN * growth.usual, after < BEGINS * growth.usual
    state, turns = True, 0
    for is_high, is_low in zip(high.tolist(), low.tolist(), strict=True):
        if (state and is_low) or (not state and is_high):
            state, turns = not state, turns + 1
    return turns >= 3


def is_thrown(norms: Curve, growth: Growth, followed: int) -> bool:
    """Whether gradient and loss jump in one step, and the gradient is largest there and a small part of that in the
    end: then the weights were thrown, by whatever it was, and did not get there by ever larger gradients."""
    after = norms.values[norms.steps >= growth.began]
    end = median(after[-max(3, len(after) // 4) :])
    small = max(BEGINS * growth.usual, float(after.max()) / GROWN)
    return followed == growth.began and int(np.argmax(after)) < STAYS and end < small


def grows_until(norms: Curve, growth: Growth) -> int:
    """The last step of a growth that goes on and on: to where the norm is at its largest, if each third of the way
    there lies above the one before; else where it was large."""
    until = int(norms.steps[int(np.argmax(norms.values))])
    third = (until - growth.began) / 3
    levels = [norms.level(growth.began + third * at, growth.began + third * (at + 1)) for at in range(3)]
    return until if levels[0] < levels[1] < levels[2] else growth.large


def left_before(case: Case, norms: Curve, growth: Growth) -> bool:
    """Whether the validation loss had left when the gradient was still near its usual size: then it is a divergence,
    whose gradient follows."""
    validation = Curve.of(case.validation_loss())
    before = None if validation is None else validation.between(validation.first_step, growth.large)
    if before is None or len(before) < 3:
        return False
    lowest_at = int(np.argmin(before.values))
    lowest, highest = float(before.values[lowest_at]), float(before.values[: lowest_at + 1].max())
    since = validation.values[lowest_at:]  # type: ignore[union-attr]
    if len(since) >= 3 and float(since[-1]) > highest and (np.diff(since) > 0).all():
        # From the first evaluation after the best on it rose, to above where it began: there it left, or as soon as it
        # is clearly above its best.
        left = max(1, int(np.argmax(since > lowest + CLEARLY * abs(lowest))))
        if lowest_at + left >= len(before.values):
            return False
    else:
        high = np.flatnonzero(before.values[lowest_at:] > lowest + max(0.2 * (highest - lowest), 0.05 * abs(lowest)))
        if not len(high):
            return False
        left = int(high[0])
    step = int(validation.steps[lowest_at + left])  # type: ignore[union-attr]
    near = norms.between(step - 8, step)
    return near is not None and median(near.values) < LEADS * growth.usual


def outgrows(norms: Curve, loss: Curve, growth: Growth) -> bool:
    """Whether the gradient grows so much more than the loss that it is no consequence of it: what a loss that leaves
    does to its gradient is of the order of what it does itself."""
    level = loss.level(loss.first_step, growth.began)
    times = float(loss.values[loss.steps >= growth.began].max(initial=0.0)) / level if level > 0 else 0.0
    largest = float(norms.values[norms.steps >= growth.began].max())
    return times > 0 and largest / growth.usual > OUTGROWS * times


def rises_from(norms: Curve, growth: Growth) -> int:
    """The last step before the growth at which the norm, smoothed, was at its usual size."""
    smooth = running_median(norms.values, 5)
    calm = np.flatnonzero((norms.steps <= growth.began) & (smooth <= 1.2 * growth.usual))
    return int(norms.steps[calm[-1]]) if len(calm) else growth.began


def lowest_before(norms: Curve, growth: Growth) -> int:
    """The step at which the norm, smoothed, was lowest shortly before the growth: what grows by some part in each step
    was soon twice as large, but not of what a norm that had been falling was usually."""
    near = (norms.steps <= growth.began) & (norms.steps >= growth.began - JUST * (norms.last_step - norms.first_step))
    return int(norms.steps[near][int(np.argmin(running_median(norms.values, 5)[near]))])


def followed_by(loss: Curve, began: int, broken: int | None) -> tuple[int, bool, str] | None:
    """Where the loss followed, whether it was lost, and what it did; None where it did not follow, or led."""
    before = loss.between(loss.first_step, began - 1)
    if before is None or len(before) < 6:
        return None
    near = before.values[-max(6, len(before) // 8) :]
    level, noise = median(near), max(before.noise, 1e-12)
    bound = level + max(4 * noise, 0.05 * max(before.start - before.floor, 0.0), 0.01 * abs(level))
    if median(before.values[-3:]) > bound:
        return None  # the loss led
    after = loss.between(began, loss.last_step)
    high = np.flatnonzero(after.values > bound) if after is not None else np.empty(0, np.int64)
    if broken is not None:
        first = int(after.steps[high[0]]) if after is not None and len(high) else broken
        return min(first, broken), True, f"the loss or the gradient is no number from step {broken:,} on"
    if after is None or len(high) < min(3, len(after)):
        return None
    runs = [index for index in high if (after.values[index : index + 3] > bound).all()]
    if not runs:
        return None
    first, top = int(after.steps[runs[0]]), float(after.values.max())
    stays = loss.end > bound
    said = f"the loss followed at step {first:,}, from {format.decimal(level)} to {format.decimal(top)}"
    return first, stays, said + ("" if stays else ", and came back")
