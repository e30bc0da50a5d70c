"""gradients-not-cleared: gradients of earlier steps are still in the sum.

Looks for: a gradient norm that adds up from the first step on. Gradients of neighbouring steps point the same way while
    little has been learned, so that their sum grows evenly, by one gradient a step: the eighth norm is several times
    the first. Later the sum wanders: it is many times a single gradient, and changes from step to step by less than one
    of many parts, where the norm of a batch's own gradient scatters; or it rises part by part to the last step, like a
    power of the steps done. Examinations, which take a batch's gradient apart from the training, have one that is less
    than half as large, each time. One that is cleared every so many steps rises and falls back in a sawtooth.
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
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.medians import median
from trimtab.runs import format

FEWEST: Final = 30
SUMMED: Final = 8
"""The first norms, of which the last must be several times the first."""
SMOOTH: Final = 0.04
"""Usual change from one norm to the next, of a sum of many gradients."""
MANY: Final = 5.0
ALTERNATES: Final = 3
"""Steps: batches of two or three kinds in turn make such a sawtooth, too."""
LONGEST: Final = 64
"""Steps between two that clear."""
FALLS_BACK: Final = 1.4
"""Times what it is then, that a sum was before it is cleared."""
SHARE: Final = 0.4
"""Of the changes of the norm, that a sawtooth must explain."""
SURE_SHARE: Final = 0.6
"""The same, of one that need not rise each time."""
ENOUGH: Final = 3.0
PARTS, FAR, STRAIGHT, STEEPEST = 12, 50.0, 0.95, 2.5
"""Of a norm that rises throughout: parts that each lie above the one before, times the first, correlation with a power
of the step, and the highest power."""
OWN: Final = 2.0
"""Times the norm of a batch's own gradient, at each examination."""
NEAR: Final = 8
"""Steps before and after an examination."""


def check(case: Case) -> Iterator[Finding]:
    """A warning where the signs agree."""
    norms = Curve.of(case.history.get("grad_norm"))
    if norms is None or len(norms) < FEWEST or not (norms.values > 0).all():
        return
    sawtooth = _sawtooth(norms)
    if sawtooth is not None:
        yield from _now_and_then(case, norms, *sawtooth)
        return
    adds_up = _adds_up(norms)
    wanders = [*_wanders(norms), *_beyond_own(case, norms)]
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
        remedies=(
            Remedy(
                "clear gradients before each update: optimizer.zero_grad(set_to_none=True) before the first backward "
                "pass of it"
            ),
        ),
    )


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


def _sawtooth(norms: Curve) -> tuple[int, float, float] | None:
    """The period of a norm that rises and falls back, how much of its changes that is, and how far it rises."""
    if norms.first_step > 2 or len(norms) < 8 * 2 or (np.diff(norms.steps) != 1).any():
        return None
    values = np.log(norms.values)
    changes = np.diff(values)
    whole = float(np.square(changes - changes.mean()).mean())
    if whole <= 0:
        return None
    falls_back = int((changes < -np.log(FALLS_BACK)).sum())  # in half of the periods at least
    shortest = max(2, len(changes) // (2 * falls_back) if falls_back else len(changes))
    for period in range(shortest, min(LONGEST, len(changes) // 8) + 1):
        rows = changes[: len(changes) // period * period].reshape(-1, period)
        sums = rows.sum(axis=0)
        if float(sums @ sums) < 0.99 * SHARE * whole * period * len(rows) ** 2:
            continue  # of most, without their exact share
        share = float(np.square(rows.mean(axis=0)).mean()) / whole
        if share <= SHARE:
            continue
        profile = np.median(rows, axis=0)
        falls = int(np.argmin(profile))
        after = (falls + 1) % period
        times = float(np.exp(-profile[falls]))
        # The same phase falls nearly each time, and the next rises by up to one gradient more.
        always = min(float((rows[:, falls] < 0).mean()), float((rows[:, after] > 0).mean()) + 0.05)
        # A sum grows until it is cleared; batches of an epoch in a fixed order are larger and smaller in between.
        others = -float(np.minimum(np.delete(profile, falls), 0.0).sum()) < 0.25 * -float(profile[falls])
        if (
            times > FALLS_BACK
            and always > (0.9 if share < SURE_SHARE else 0.8)
            and 0.15 < profile[after] < 0.8
            and others
        ):
            return period, share, times
    return None


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


def _wanders(norms: Curve) -> list[tuple[float, Evidence]]:
    """The norm is many times the first, and neighbours hardly differ."""
    rest = norms.values[max(SUMMED, len(norms) // 10) :]
    changes = np.abs(np.diff(np.log(rest)))
    usual, level = median(changes), median(rest)
    times = float(level / norms.values[0])
    found: list[tuple[float, Evidence]] = []
    steps = int(norms.steps[-len(rest)]), norms.last_step
    if times < MANY:
        return found
    text = f"the usual gradient norm is {format.decimal(level)}, {times:,.0f} times that of the first step"
    if usual < SMOOTH:
        text += f", and changes by {usual:.1%} from one step to the next"
        found.append((2.0 if usual < SMOOTH / 2 else 1.5, Evidence("grad_norm", steps, usual, 0.1, text)))
    if (grows := _throughout(norms)) is not None:
        text = f"it rises from the first step to the last, like power {grows:.1f} of the steps done"
        found.append((3.0, Evidence("grad_norm", (norms.first_step, norms.last_step), times, 1.0, text)))
    elif _like_a_power(norms):
        text = "it grows like a power of the steps done, as a sum does, and not faster and faster"
        found.append((1.0, Evidence("grad_norm", (norms.first_step, steps[0]), times, 1.0, text)))
    return found


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
    if own is None or len(own) < 2 or not (own.values > 0).all() or loss is None or _is_another_gradient(case):
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


def _is_another_gradient(case: Case) -> bool:
    """Whether training takes the gradient of more than the loss that examinations take."""
    usual = {"procedure.name": "plain", "sharpness.name": "none", "embedding.mixup.alpha": 0.0}
    usual |= {"penalties.l2.strength": 0.0, "embedding.noise.alpha": 0.0, "embedding.cutout.rate": 0.0}
    return any(case.setting(name) != value for name, value in usual.items())


def _like_a_power(norms: Curve) -> bool:
    """Whether the first third grows like a power of the step between a third and one and a half."""
    part = norms.values[: max(SUMMED, len(norms) // 3)]
    at = np.log(np.arange(1, len(part) + 1))
    exponent, _ = np.polyfit(at, np.log(part), 1)
    return bool(0.33 < exponent < 1.5) and float(np.corrcoef(at, np.log(part))[0, 1]) > 0.85
