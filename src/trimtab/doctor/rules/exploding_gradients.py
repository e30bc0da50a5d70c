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
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.growths import (
    comes_and_goes,
    followed_by,
    grows_until,
    growths,
    is_thrown,
    left_before,
    lowest_before,
    outgrows,
    rises_from,
)
from trimtab.doctor.reading.leads import Lead, lead_of_gradient
from trimtab.doctor.reading.restarts import thrown_by_burst
from trimtab.doctor.reading.thrown import growing, jump, outgrown
from trimtab.doctor.remedies import lower_rate
from trimtab.doctor.rules.loss_spike import clipping
from trimtab.runs import format
from trimtab.runs.printable import printable

FEWEST: Final = 12
TOGETHER: Final = 0.03
"""Part of the run: gradient and loss that begin to grow so near to each other do so at once."""
SOON: Final = 20
LATEST: Final = 0.1
"""Steps, and part of all, within which the loss must follow: a gradient that grew long before has another reason."""


def check(case: Case) -> Iterator[Finding]:
    """An error where the loss was lost with it, else a warning."""
    series, loss = case.history.get("grad_norm"), Curve.of(case.loss())
    norms = Curve.of(series)
    if series is None or norms is None or loss is None or len(norms) < FEWEST or len(loss) < FEWEST:
        return
    if growing(case) is not None:
        return  # all weights are multiplied, and the gradient follows them
    bad = case.loss().first_bad_step  # type: ignore[union-attr]
    broken = min((step for step in (bad, series.first_bad_step) if step is not None), default=None)
    if broken is not None and (case.history.has("loss_scale") or broken <= norms.first_step):
        broken = bad if bad is not None and bad > norms.first_step else None
    soon = max(SOON, LATEST * (norms.last_step - norms.first_step))
    for growth in growths(norms if broken is None else norms.between(norms.first_step, broken - 1), broken):
        led = left_before(case, norms, growth) and not outgrows(norms, loss, growth)
        left = None if led else followed_by(loss, growth.began, broken)
        if left is not None and growth.began <= left[0] <= max(growth.large + soon, grows_until(norms, growth)):
            break
    else:
        lead = lead_of_gradient(loss, Curve.of(case.validation_loss()), norms) if broken is None else None
        if lead is not None:
            yield _that_outran(case, norms, loss, lead)
        else:
            yield from _multiplied(case)
        return
    if (not left[1] and comes_and_goes(norms, growth)) or (broken is None and is_thrown(norms, growth, left[0])):
        return
    if broken is None and thrown_by_burst(case, loss):
        return
    if (thrown := jump(case)) is not None and thrown.begin <= growth.began <= thrown.end + 1:
        return  # by what was written into the weights
    (began, large, usual, largest), (followed, lost, said) = growth, left
    leads = followed - began > TOGETHER * (loss.last_step - loss.first_step) or outgrows(norms, loss, growth)
    onset = rises_from(norms, growth) if leads else lowest_before(norms, growth)
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
        remedies=(*clipping(case), lower_rate(case, onset=followed)),
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
        remedies=(*clipping(case), lower_rate(case, onset=lead.left)),
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
