"""gradients-not-cleared: gradients of earlier steps are still in the sum.

Looks for: gradients that are not zero as an examined step begins. In logs without these: a
    gradient norm that adds up from the first step on. Gradients of neighbouring steps point the same way while little
    has been learned, so that their sum grows evenly, by one gradient a step: the eighth norm is several times
    the first. Later the sum wanders: it is many times a single gradient, and changes from step to step by less than one
    of many parts, where the norm of a batch's own gradient scatters; or it rises part by part to the last step, like a
    power of the steps done. Examinations, which take a batch's gradient apart from the training, have one that is less
    than half as large, each time. One that is cleared every so many steps rises and falls back in a sawtooth, and so it
    does in a log of a row for many steps: there a remark, as batches in the order of their length do as much. A sum of
    many differs from row to row by less than the loss of its batches.
Why it matters: each update follows all batches since the beginning; with plain gradient descent that is a momentum that
    never fades, and the run swings or leaves.
Evidence: the first norms, the usual one beside them, and how little neighbours differ.
Remedy: `optimizer.zero_grad()` before each backward pass that begins an update.
False alarms: a gradient that explodes grows faster and faster, and not from the first step on; one that grows slowly
    in a sound run scatters from batch to batch. Very large batches scatter little, but their norm does not add up.
    Batches of two or three kinds that come in turn rise and fall like a sum that is cleared as often: a remark, but
    where data is known to be shuffled. A log of what was left after clipping is constant, and shows nothing.
Source: own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.curves import Curve, Steps
from trimtab.doctor.reading.medians import is_median_at_most, median
from trimtab.doctor.reading.teeth import Teeth, sawtooth_of, teeth_of
from trimtab.doctor.reading.thrown import is_another_gradient
from trimtab.runs import format

FEWEST: Final = 30
SUMMED: Final = 8
"""The first norms, of which the last must be several times the first."""
SMOOTH: Final = 0.04
"""Usual change from one norm to the next, of a sum of many gradients."""
MANY: Final = 5.0
ALTERNATES: Final = 3
"""Steps: batches of two or three kinds in turn make such a sawtooth, too."""
ENOUGH: Final = 3.0
QUIET: Final = 0.6
"""Of the usual change of the loss: single gradients scatter as much as the losses that they are of."""
PARTS, FAR, STRAIGHT, STEEPEST = 12, 50.0, 0.95, 2.5
"""Of a norm that rises throughout: parts that each lie above the one before, times the first, correlation with a power
of the step, and the highest power."""
OWN: Final = 2.0
"""Times the norm of a batch's own gradient, at each examination."""
NEAR: Final = 8
"""Steps before and after an examination."""
CLEAR: Final = Remedy(
    "clear gradients before each update: optimizer.zero_grad(set_to_none=True) before the first backward pass of it"
)


def check(case: Case) -> Iterator[Finding]:
    """A warning where the signs agree."""
    if left := list(_left(case)):
        yield from left
        return
    norms = Curve.of(case.history.get("grad_norm"))
    if norms is None or not (norms.values > 0).all():
        return
    empty = _begun_empty(case)
    sawtooth = sawtooth_of(norms) if len(norms) >= FEWEST else None
    if sawtooth is not None and len(np.unique(empty % sawtooth[0])) <= 1:
        yield from _now_and_then(case, norms, *sawtooth)
        return
    rates = Curve.of(case.history.get("learning_rate"))
    teeth = teeth_of(norms, Curve.of(case.loss()), rates) if sawtooth is None else None
    if teeth is not None and (np.diff(empty) >= 0.9 * teeth.period).all():
        yield _cleared_rarely(norms, teeth)
        return
    if teeth is not None or len(norms) < FEWEST or len(empty) > 1:
        return
    adds_up = _adds_up(norms)
    wanders = [*_wanders(norms, Curve.of(case.loss())), *_beyond_own(case, norms)]
    points = sum(weight for weight, _ in (*adds_up, *wanders))
    if points < ENOUGH or not wanders:
        return
    yield Finding(
        "gradients-not-cleared",
        "warning",
        0.9 if adds_up or len(wanders) > 1 else 0.8 if wanders[-1][1].metric == "probe/grad_norm" else 0.7,
        norms.first_step,
        "the gradient is a sum over all steps since the first: it is not cleared between updates",
        tuple(evidence for _, evidence in (*adds_up, *wanders)),
        remedies=(CLEAR,),
    )


def _left(case: Case) -> Iterator[Finding]:
    """What gradients held as examined steps began, which is nothing in a sound run."""
    left = Curve.of(case.history.get("probe/grad_left"))
    if left is None or not (left.values > 0).any():
        return
    at = int(np.argmax(left.values > 0))
    told = f"in {int((left.values > 0).sum())} of {len(left)} examined steps gradients were not zero as the step began"
    yield Finding(
        "gradients-not-cleared",
        "warning",
        0.95,
        1,
        "the gradient of a step is still there when the next one begins, and is part of its update",
        (Evidence("probe/grad_left", (int(left.steps[at]), left.last_step), float(left.values.max()), 0.0, told),),
        remedies=(CLEAR,),
    )


def _begun_empty(case: Case) -> Steps:
    """The examined steps that began without anything in the gradients: two of them are no sum since the first step, nor
    one that is cleared every so many, unless these lie between them."""
    left = Curve.of(case.history.get("probe/grad_left"))
    return np.empty(0, np.int64) if left is None else left.steps[~(left.values > 0)]


def _now_and_then(case: Case, norms: Curve, period: int, share: float, times: float) -> Iterator[Finding]:
    """A sum that is cleared every `period` steps only."""
    sure = period > ALTERNATES or case.setting("data.shuffle") is True  # drawn batches do not take turns
    yield Finding(
        "gradients-not-cleared",
        "warning" if sure else "info",
        0.85 if sure else 0.5,
        norms.first_step,
        f"the gradient is a sum that is cleared only every {period} steps, while the weights are updated in each",
        (
            Evidence(
                "grad_norm",
                (norms.first_step, norms.last_step),
                times,
                1.0,
                f"the gradient norm rises for {period - 1} steps to {times:.1f} times what it was, and falls back in "
                f"the next, again and again: that is {share:.0%} of how it changes",
            ),
        ),
        remedies=(
            Remedy(
                "clear gradients as often as the optimizer steps; with accumulation, step the optimizer only where "
                "they are cleared"
            ),
        ),
    )


def _cleared_rarely(norms: Curve, teeth: Teeth) -> Finding:
    """A remark on what may be a sum whose clearing shows between rows that are some steps apart; batches that are
    ordered alike in each epoch look the same."""
    told = (
        f"{teeth.falls} times, every {teeth.period:,.0f} steps counted from the first, the gradient norm falls back in "
        f"one row from {teeth.times:.1f} times what it then is, the loss does not, and then it grows again"
    )
    return Finding(
        "gradients-not-cleared",
        "info",
        0.5,
        norms.first_step,
        f"the gradient may be a sum that is cleared only every {teeth.period:,.0f} steps or so, as often as an epoch "
        "ends or a log is written, while the weights are updated more often",
        (Evidence("grad_norm", (norms.first_step, norms.last_step), teeth.times, 1.0, told),),
        remedies=(
            Remedy("clear gradients before each update: optimizer.zero_grad(set_to_none=True) in the inner loop"),
        ),
    )


def _adds_up(norms: Curve) -> list[tuple[float, Evidence]]:
    """The first norms grow by about one gradient a step."""
    if norms.first_step > 2 or int(norms.steps[SUMMED - 1]) > 2 * SUMMED:
        return []
    first = norms.values[:SUMMED]
    rises = np.diff(first)
    times = float(first[-1] / first[0])
    usual = median(rises)
    evenly = median(np.abs(rises - usual)) < 0.6 * usual
    if not (2.2 < times < 2 * SUMMED) or (rises > 0).mean() < 0.85 or not evenly:
        return []
    told = ", ".join(format.decimal(float(norm)) for norm in first)
    text = f"the first {SUMMED} gradient norms add up: {told}"
    steps = norms.first_step, int(norms.steps[SUMMED - 1])
    return [(2.0, Evidence("grad_norm", steps, times, 1.0, text))]


def _wanders(norms: Curve, loss: Curve | None) -> list[tuple[float, Evidence]]:
    """The norm is many times the first, and neighbours hardly differ."""
    rest = norms.values[max(SUMMED, len(norms) // 10) :]
    found: list[tuple[float, Evidence]] = []
    if is_median_at_most(rest, 0.999 * MANY * float(norms.values[0])):
        return found  # as nearly always
    level = median(rest)
    times = float(level / norms.values[0])
    if times < MANY:
        return found
    usual, steps = median(np.abs(np.diff(np.log(rest)))), (int(norms.steps[-len(rest)]), norms.last_step)
    text = f"the usual gradient norm is {format.decimal(level)}, {times:,.0f} times that of the first step"
    if usual < SMOOTH:
        text += f", and changes by {usual:.1%} from one step to the next"
        weight = 2.0 if usual < SMOOTH / 2 else 1.5
        if loss is not None and usual < QUIET * (scatter := _scatter(loss)):
            text += f", where the loss of its batches changes by {scatter:.1%}"
            weight = ENOUGH
        found.append((weight, Evidence("grad_norm", steps, usual, 0.1, text)))
    if (grows := _throughout(norms)) is not None:
        text = f"it rises from the first step to the last, like power {grows:.1f} of the steps done"
        found.append((3.0, Evidence("grad_norm", (norms.first_step, norms.last_step), times, 1.0, text)))
    elif _like_a_power(norms):
        text = "it grows like a power of the steps done, as a sum does, and not faster and faster"
        found.append((1.0, Evidence("grad_norm", (norms.first_step, steps[0]), times, 1.0, text)))
    return found


def _scatter(loss: Curve) -> float:
    """The usual change of the loss from one row to the next, of what it is, after the first steps."""
    rest = loss.values[max(SUMMED, len(loss) // 10) :]
    return median(np.abs(np.diff(np.log(rest)))) if len(rest) > SUMMED and (rest > 0).all() else 0.0


def _throughout(norms: Curve) -> float | None:
    """The power of the step that the norm grows like from the first value to the last, part by part; None where it does
    not: what explodes grows faster and faster, and what follows a loss that has left comes to rest."""
    _, levels, _ = norms.blocks(PARTS)
    at, values = np.log(np.arange(1, len(norms) + 1)), np.log(norms.values)
    if (np.diff(levels) <= 0).any() or levels[-1] < FAR * norms.values[0]:
        return None
    if float(np.corrcoef(at, values)[0, 1]) < STRAIGHT:
        return None
    exponent = float(np.polyfit(at, values, 1)[0])
    return exponent if exponent < STEEPEST else None


def _beyond_own(case: Case, norms: Curve) -> Iterator[tuple[float, Evidence]]:
    """Norms several times that of a batch's own gradient, which examinations take apart from the training."""
    own, loss, judged = (
        Curve.of(case.history.get(name)) for name in ("probe/grad_norm", "train/loss", "training_slice/loss")
    )
    if own is None or len(own) < 2 or not (own.values > 0).all() or loss is None or is_another_gradient(case):
        return
    beside = np.array([norms.level(step - NEAR, step + NEAR) for step in own.steps])
    times = float((beside / own.values).min())
    summed = judged is not None and median(loss.smoothed[len(loss) // 2 :]) > 1.8 * float(judged.values[-1])
    if not times > OWN or summed:  # a loss that is summed has a gradient that is summed
        return
    text = (
        f"at each of {len(own)} examinations the gradient norm is at least {times:.1f} times that of a batch's own "
        "gradient"
    )
    yield 3.0, Evidence("probe/grad_norm", (own.first_step, own.last_step), times, 1.0, text)


def _like_a_power(norms: Curve) -> bool:
    """Whether the first third grows like a power of the step between a third and one and a half."""
    part = norms.values[: max(SUMMED, len(norms) // 3)]
    at = np.log(np.arange(1, len(part) + 1))
    exponent, _ = np.polyfit(at, np.log(part), 1)
    return bool(0.33 < exponent < 1.5) and float(np.corrcoef(at, np.log(part))[0, 1]) > 0.85
