"""exploding-gradients: the gradient grows by orders of magnitude, and the loss follows.

Looks for: a gradient norm, before clipping, that grows to ten times its usual size or more over several values, and
    stays there or ends in no number; and a loss that leaves later than the gradient began to grow, or is no number. Or
    a loss that has left for good, where the gradient had grown several times as much as it did when it was first
    clearly away: few rows tell that as well as many.
    Also a norm that grows from examination to examination, where that of the batch that is examined does not.
Why it matters: updates follow the gradient; where it grows by itself (through many layers or time steps, each of which
    makes it larger) the run is lost some steps later.
Evidence: from where to where the norm grew, over how many steps, which layers grew most, and when the loss followed.
Remedy: clip the norm of the gradient; a lower rate; look at what multiplies (recurrent weights, residual sums without a
    norm, losses that divide).
False alarms: in a divergence the loss leads, and the gradient grows because of it: then nothing is said here, unless
    the gradient grows a hundred times as much as the loss, which no loss does to it. A norm
    that grows slowly while the loss falls is healthy, and so are single large values. A norm that adds up from the
    first step on, evenly, is that of gradients that are not cleared; one that grows where all weights jump at once, or
    are multiplied in each step, follows these.
Source: Pascanu et al. 2013, arXiv 1211.5063; own thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.curves import Curve, noise_of, running_median
from trimtab.doctor.reading.leads import Lead, lead_of_gradient
from trimtab.doctor.reading.medians import median
from trimtab.doctor.reading.restarts import thrown_by_burst
from trimtab.doctor.reading.thrown import growing, jump, outgrown
from trimtab.doctor.remedies import lower_rate
from trimtab.doctor.rules.loss_spike import clipping
from trimtab.runs import format
from trimtab.runs.printable import printable

FEWEST: Final = 12
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
TOGETHER: Final = 0.03
"""Part of the run: gradient and loss that begin to grow so near to each other do so at once."""
NOISES: Final = 4.0
"""Of single norms, on a logarithmic scale."""
SOON: Final = 20
LATEST: Final = 0.1
"""Steps, and part of all, within which the loss must follow: a gradient that grew long before has another reason."""


class _Growth(NamedTuple):
    """Where the norm began to grow, where it was ten times as large, what was usual, and the largest."""

    began: int
    large: int
    usual: float
    largest: float


def check(case: Case) -> Iterator[Finding]:
    """An error where the loss was lost with it, else a warning."""
    series, loss = case.history.get("grad_norm"), Curve.of(case.loss())
    norms = Curve.of(series)
    if series is None or norms is None or loss is None or len(norms) < FEWEST or len(loss) < FEWEST:
        return
    if growing(case) is not None:
        return  # all weights are multiplied, and the gradient follows them
    thrown = jump(case)
    bad = case.loss().first_bad_step  # type: ignore[union-attr]
    broken = min((step for step in (bad, series.first_bad_step) if step is not None), default=None)
    if broken is not None and (case.history.has("loss_scale") or broken <= norms.first_step):
        broken = bad if bad is not None and bad > norms.first_step else None
    soon = max(SOON, LATEST * (norms.last_step - norms.first_step))
    for growth in _growths(norms if broken is None else norms.between(norms.first_step, broken - 1), broken):
        led = _led(case, norms, growth) and not _outgrows(norms, loss, growth)
        left = None if led else _left(loss, growth.began, broken)
        if left is not None and growth.began <= left[0] <= max(growth.large + soon, _grows_until(norms, growth)):
            break
    else:
        lead = lead_of_gradient(loss, Curve.of(case.validation_loss()), norms) if broken is None else None
        if lead is not None:
            yield _that_outran(case, norms, loss, lead)
        else:
            yield from _multiplied(case)
        return
    if (not left[1] and _comes_and_goes(norms, growth)) or (broken is None and _is_thrown(norms, growth, left[0])):
        return
    if broken is None and thrown_by_burst(case, loss):
        return
    if thrown is not None and thrown.begin <= growth.began <= thrown.end + 1:
        return  # by what was written into the weights
    (began, large, usual, largest), (followed, lost, said) = growth, left
    leads = followed - began > TOGETHER * (loss.last_step - loss.first_step) or _outgrows(norms, loss, growth)
    onset = _rises_from(norms, growth) if leads else began
    steps = (began, min(large + max(1, (norms.last_step - large) // 10), norms.last_step))
    evidence = [
        Evidence(
            "grad_norm",
            steps,
            largest,
            usual,
            f"the gradient norm grew from {format.decimal(usual)} to {format.decimal(largest)}, from step {began:,} "
            f"on, and was ten times its usual size at step {large:,}",
        ),
        *_layers(case, began),
        Evidence("train/loss", (followed, loss.last_step), None, None, said),
    ]
    yield Finding(
        "exploding-gradients",
        "error" if lost else "warning",
        0.85 if followed > began or broken is not None else 0.7,
        onset,
        f"the gradient grew {largest / usual:,.0f}-fold from step {onset:,} on, and {said}",
        tuple(evidence),
        remedies=(*clipping(case), lower_rate(case)),
    )


def _that_outran(case: Case, norms: Curve, loss: Curve, lead: Lead) -> Finding:
    """A gradient that had grown several times as much as the loss where that was away."""
    times, risen = lead.norm / lead.usual_norm, lead.loss / lead.usual_loss
    grew = (
        f"at step {lead.left:,}, from where on the loss stays above what it was, the gradient norm had grown from "
        f"{format.decimal(lead.usual_norm)} to {format.decimal(lead.norm)}, {times:,.0f}-fold"
    )
    followed = (
        f"the loss was {risen:.1f} times its lowest there, {format.decimal(lead.loss)}, and came to "
        f"{format.decimal(loss.end)}"
    )
    return Finding(
        "exploding-gradients",
        "error",
        0.8,
        lead.began,
        f"the gradient grew from step {lead.began:,} on, and faster than the loss, which left for good",
        (
            Evidence("grad_norm", (lead.began, norms.last_step), lead.norm, lead.usual_norm, grew),
            *_layers(case, lead.began),
            Evidence("train/loss", (lead.left, loss.last_step), loss.end, lead.usual_loss, followed),
        ),
        remedies=(*clipping(case), lower_rate(case)),
    )


def _multiplied(case: Case) -> Iterator[Finding]:
    """A warning before the loss follows, where examinations tell that the gradient is not that of the batches."""
    if (found := outgrown(case)) is None:
        return
    told = (
        f"from step {found.begin:,} to {found.end:,} the gradient norm grew {found.times:,.0f}-fold, and that of the "
        "examined batch, which nothing but the weights changes, did not"
    )
    yield Finding(
        "exploding-gradients",
        "warning",
        0.8,
        found.begin,
        "the gradient grows, and not that of the batches: something multiplies it on its way to the update",
        (Evidence("probe/grad_norm", (found.begin, found.end), found.times, 1.0, told),),
        remedies=(Remedy("look at hooks, scales and clipping that change gradients"), *clipping(case)),
    )


def _growths(norms: Curve | None, broken: int | None) -> Iterator[_Growth]:
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
        whole = values[min(settled, at - 6) : at]  # of a growth that is slow the stretch before has grown, too
        usual = min(median(before[: max(6, 3 * len(before) // 4)]), median(whole))
        if smooth[at] - usual > np.log(GROWN):
            noise = noise_of(before)
            after = values[at:]
            stays = (
                len(after) <= STAYS or float(np.median(after[: max(10, len(values) // 20)])) - usual > np.log(GROWN) / 2
            )
            if smooth[at] - usual < NOISES * noise or not stays:
                continue
            calm = np.flatnonzero(values[:at] - usual < np.log(BEGINS))
            began = int(calm[-1]) + 1 if len(calm) else 0
            largest = float(np.exp(after[: max(10, len(values) // 10)].max()))
            if began != told and float(np.exp(smooth[at : at + max(10, len(values) // 10)].max())) > begun:
                yield _Growth(int(norms.steps[began]), int(norms.steps[at]), float(np.exp(usual)), largest)
                told = began


def _comes_and_goes(norms: Curve, growth: _Growth) -> bool:
    """Whether the norm is near its usual size again and again after it was large, and large again in between: what
    comes in turns is in the data."""
    after = norms.values[norms.steps > growth.large]
    high, low = after > 0.5 * GROWN * growth.usual, after < BEGINS * growth.usual
    state, turns = True, 0
    for is_high, is_low in zip(high.tolist(), low.tolist(), strict=True):
        if (state and is_low) or (not state and is_high):
            state, turns = not state, turns + 1
    return turns >= 3


def _is_thrown(norms: Curve, growth: _Growth, followed: int) -> bool:
    """Whether gradient and loss jump in one step, and the gradient is largest there and a small part of that in the
    end: then the weights were thrown, by whatever it was, and did not get there by ever larger gradients."""
    after = norms.values[norms.steps >= growth.began]
    end = float(np.median(after[-max(3, len(after) // 4) :]))
    small = max(BEGINS * growth.usual, float(after.max()) / GROWN)
    return followed == growth.began and int(np.argmax(after)) < STAYS and end < small


def _grows_until(norms: Curve, growth: _Growth) -> int:
    """The last step of a growth that goes on and on: to where the norm is at its largest, if each third of the way
    there lies above the one before; else where it was large."""
    until = int(norms.steps[int(np.argmax(norms.values))])
    third = (until - growth.began) / 3
    levels = [norms.level(growth.began + third * at, growth.began + third * (at + 1)) for at in range(3)]
    return until if levels[0] < levels[1] < levels[2] else growth.large


def _led(case: Case, norms: Curve, growth: _Growth) -> bool:
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
    return near is not None and float(np.median(near.values)) < LEADS * growth.usual


def _outgrows(norms: Curve, loss: Curve, growth: _Growth) -> bool:
    """Whether the gradient grows so much more than the loss that it is no consequence of it: what a loss that leaves
    does to its gradient is of the order of what it does itself."""
    level = loss.level(loss.first_step, growth.began)
    times = float(loss.values[loss.steps >= growth.began].max(initial=0.0)) / level if level > 0 else 0.0
    largest = float(norms.values[norms.steps >= growth.began].max())
    return times > 0 and largest / growth.usual > OUTGROWS * times


def _rises_from(norms: Curve, growth: _Growth) -> int:
    """The last step before the growth at which the norm, smoothed, was at its usual size."""
    smooth = running_median(norms.values, 5)
    calm = np.flatnonzero((norms.steps <= growth.began) & (smooth <= 1.2 * growth.usual))
    return int(norms.steps[calm[-1]]) if len(calm) else growth.began


def _left(loss: Curve, began: int, broken: int | None) -> tuple[int, bool, str] | None:
    """Where the loss followed, whether it was lost, and what it did; None where it did not follow, or led."""
    before = loss.between(loss.first_step, began - 1)
    if before is None or len(before) < 6:
        return None
    near = before.values[-max(6, len(before) // 8) :]
    level, noise = float(np.median(near)), max(before.noise, 1e-12)
    bound = level + max(4 * noise, 0.05 * max(before.start - before.floor, 0.0), 0.01 * abs(level))
    if float(np.median(before.values[-3:])) > bound:
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


def _layers(case: Case, began: int) -> Iterator[Evidence]:
    """The parameters whose gradient grew most."""
    steps, names, norms_WL = case.history.layers.values("grad_norm")
    before, after = steps < began, steps >= began
    if before.sum() < 2 or after.sum() < 1:
        return
    usual_L = np.nanmedian(np.where(np.isfinite(norms_WL[before]), norms_WL[before], np.nan), axis=0)
    largest_L = np.nanmax(np.where(np.isfinite(norms_WL[after]), norms_WL[after], 0.0), axis=0)
    grown = {
        name: float(large / usual)
        for name, usual, large in zip(names, usual_L, largest_L, strict=True)
        if np.isfinite(usual) and usual > 0
    }
    if grown:
        most = sorted(grown, key=lambda name: -grown[name])[:3]
        told = ", ".join(f"{printable(name, limit=60)} ({grown[name]:,.0f}-fold)" for name in most)
        yield Evidence(
            "layer/*/grad_norm", (int(steps[after][0]), int(steps[-1])), grown[most[0]], 1.0, f"it grew most in {told}"
        )
