"""resume-discontinuity: the loss jumps where a run was resumed.

Looks for: a step from which an attempt went on, and a loss whose level behind it differs from that before by more than
    noise and by a good part of what had been gained; weights of a layer or more whose norms change there by far more
    than before; or a rate that begins anew there, which the schedule does not plan. Of a log that does not tell of
    attempts, a step back in its steps counts as one.
Why it matters: something was not brought back: weights, the optimizer's moments, the schedule, the order of the data.
    What was trained before is partly lost, and results depend on where a run was interrupted.
Evidence: the loss before and behind, the gradient and the rate there, how long the loss took to come back.
Remedy: save and load what is missing: the optimizer's and the schedule's state, the scaler, the order of the data.
False alarms: a resumed run that goes on where it was is sound. Steps that are done again behind a checkpoint are
    compared with those that survived. A batch of another kind in one step is no level.
Source: own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.curves import Curve, Floats, Steps, noise_of
from trimtab.doctor.reading.medians import median
from trimtab.doctor.reading.planned import planned_factor
from trimtab.runs import format
from trimtab.runs.printable import printable

FEW: Final = 8
"""Values behind it that make a level, beside twice as many before; twice that where these scatter too much."""
ERRORS: Final = 3.2
"""Of the difference: it is looked for at one step alone."""
WANDERS: Final = 1.5
"""Times the largest rise from one stretch to the next before."""
WINDOWS: Final = 4
"""Before the resume, whose weights are compared."""
FAR_OFF: Final = 5.0
"""Times the largest change between those."""
LOST: Final = 0.05
"""Of the norm, at least: what is lost of a weight."""
PART: Final = 0.08
"""Of all that had been gained before."""


def check(case: Case) -> Iterator[Finding]:
    """A warning for the first jump; the others are in its evidence."""
    curve = Curve.of(case.loss())
    if curve is None or len(curve) < 2 * FEW:
        return
    undone = {back.to_step for back in case.history.rollbacks.made}
    all_starts = case.history.starts
    # Of a log that does not tell of attempts it is the first step that was done again.
    before = 1 if all_starts and all_starts[0].attempt > 1 else 0
    starts = sorted({start.resumed_from - before for start in all_starts if start.resumed_from} - undone)
    # A value of another trainer's log may be the mean of many steps, and few of them show what is soon made good.
    sizes = (FEW, 2 * FEW) if case.target == "trimtab" else (FEW, 2 * FEW, FEW // 2)
    evidence: list[Evidence] = []
    onset: int | None = None
    for step in starts:
        jump = next((found for few in sizes if (found := [*_jump(curve, step, few)])), [])
        found = [*jump, *_begins_anew(case, step), *_weights(case, step)]
        if found and onset is None:
            onset = step + 1
        if found:
            evidence += [*found, *_gradient(case, step)]
    if onset is None:
        return
    rate = any(item.metric == "learning_rate" for item in evidence)
    lower = all((item.observed or 0.0) < (item.expected or 0.0) for item in evidence if item.metric == "train/loss")
    jumped = any(item.metric == "train/loss" for item in evidence)
    weights = any(item.metric == "layer/*/weight_norm" for item in evidence)
    reason = (
        "the schedule was not brought back"
        if rate
        else "weights were not brought back"
        if weights
        else "the data began anew, so that texts came that had just been learned"
        if lower
        else "weights or the optimizer's state were not brought back"
    )
    what = (
        f"the loss {'falls' if lower else 'jumps'}" if jumped else "the learning rate jumps" if rate else "weights jump"
    )
    yield Finding(
        "resume-discontinuity",
        "warning" if not lower or rate or weights else "info",
        0.9 if weights or (jumped and not lower) else 0.7,
        onset,
        f"{what} at step {onset:,}, where the run was resumed: {reason}",
        tuple(evidence),
        remedies=(
            Remedy(
                "save and load with the weights the optimizer's state, the schedule's step, the loss scale, the "
                "averages and the place in the data; compare the first loss after a resume with the last before"
            ),
            *_ours(case),
        ),
    )


def _jump(curve: Curve, step: int, few: int) -> Iterator[Evidence]:
    before, after = curve.between(curve.first_step, step), curve.between(step + 1, curve.last_step)
    if before is None or after is None or len(before) < few or len(after) < few // 2:
        return
    near, there = before.values[-2 * few :], after.values[:few]
    noise = max(noise_of(near), curve.noise)
    # A loss that falls, and falls less and less, lies between the median of the last values and a line through them.
    slope, height = _line(before.steps[-2 * few :] - step, near)
    stood, now = median(near[-few:]), median(there)
    onwards = median(after.steps[:few]) - step
    level = stood if now > stood else min(height + min(slope, 0.0) * onwards, stood)
    if (now - level) * (now - stood) <= 0:
        return
    error = ERRORS * 1.2533 * noise * float(np.sqrt(4 / len(near) + 1 / len(there)))
    levels = before.blocks(max(1, len(before) // few))[1]
    rises = np.diff(levels[len(levels) // 2 :])  # of neighbouring stretches, where losses are means of many steps
    error = max(error, WANDERS * float((rises if now > stood else -rises).max(initial=0.0)))
    gained = max(before.start - before.floor, 0.0)
    difference = now - level
    if abs(difference) <= max(error, PART * gained, 0.01 * abs(level)):
        return
    back = np.flatnonzero(after.smoothed <= level + 0.1 * difference) if difference > 0 else np.empty(0, np.int64)
    length = f", and was back at step {int(after.steps[back[0]]):,}" if len(back) else ""
    text = (
        f"the loss went from {format.decimal(level)} to {format.decimal(now)} where the run was resumed from step "
        f"{step:,}{length}"
    )
    last = int(after.steps[back[0]]) if len(back) else int(after.steps[min(FEW, len(after)) - 1])
    yield Evidence("train/loss", (step, last), now, level, text)


def _line(steps: Steps, values: Floats) -> tuple[float, float]:
    """Slope and height at 0 of a line through the values, which no single one of them moves.

    Source: Sen 1968, "Estimates of the regression coefficient based on Kendall's tau".
    """
    first, second = np.triu_indices(len(steps), 1)
    apart = steps[second] - steps[first]
    slope = median((values[second] - values[first])[apart > 0] / apart[apart > 0]) if apart.any() else 0.0
    return slope, median(values - slope * steps)


def _weights(case: Case, step: int) -> Iterator[Evidence]:
    """Weights whose norms change, across the resume, by far more than between any two windows before."""
    steps, names, norms_WL = case.history.layers.values("weight_norm")
    matrices = [at for at, name in enumerate(names) if "norm" not in name and "bias" not in name]
    at = int(np.searchsorted(steps, step, side="right"))
    if not matrices or at < WINDOWS or at >= len(steps):
        return
    with np.errstate(divide="ignore", invalid="ignore"):
        changes_WL = np.abs(np.diff(np.log(norms_WL[at - WINDOWS : at + 1, matrices]), axis=0))
    if not np.isfinite(changes_WL).all():
        return
    there_L, usual_L = changes_WL[-1], changes_WL[:-1].max(axis=0)
    farthest = int(np.argmax(there_L - FAR_OFF * np.maximum(usual_L, median(usual_L))))
    there, usual = float(there_L[farthest]), float(max(usual_L[farthest], median(usual_L)))
    if there <= max(FAR_OFF * usual, LOST):
        return
    name = printable(names[matrices[farthest]], limit=80)
    text = (
        f"the norm of {name} changed by {there:.0%} where the run was resumed from step {step:,}, and by {usual:.1%} "
        "at most from one window to the next before"
    )
    yield Evidence("layer/*/weight_norm", (step, int(steps[at])), there, usual, text)


def _begins_anew(case: Case, step: int) -> Iterator[Evidence]:
    """A rate behind the resume that is that of the first steps, or jumps, where the schedule plans neither."""
    rates = Curve.of(case.history.get("learning_rate"))
    if rates is None:
        return
    before, after = rates.between(step - 20, step), rates.between(step + 1, step + 20)
    if before is None or after is None or len(before) < 2:
        return
    last, now = float(before.values[-1]), float(after.values[0])
    if last <= 0 or 0.6 < now / last < 1.6:
        return
    usual = np.abs(np.diff(np.log(np.maximum(before.values, 1e-30)))).max(initial=0.0)
    if abs(np.log(max(now, 1e-30) / last)) < 4 * usual + 0.2:
        return
    factor = planned_factor(case)
    if factor is not None and abs(np.log(max(factor(step + 1), 1e-30) / max(factor(step), 1e-30))) > 0.3:
        return
    text = f"the learning rate went from {last:.3g} to {now:.3g} where the run was resumed from step {step:,}"
    yield Evidence("learning_rate", (step, int(after.steps[0])), now, last, text)


def _gradient(case: Case, step: int) -> Iterator[Evidence]:
    norms = Curve.of(case.history.get("grad_norm"))
    if norms is None:
        return
    before, after = norms.between(step - 40, step), norms.between(step + 1, step + 10)
    if before is None or after is None or len(before) < 4:
        return
    usual, largest = median(before.values), float(after.values.max())
    if usual > 0 and largest > 2.5 * usual:
        text = f"the gradient norm went from {format.decimal(usual)} to {format.decimal(largest)} there"
        yield Evidence("grad_norm", (step, int(after.steps[-1])), largest, usual, text)


def _ours(case: Case) -> Iterator[Remedy]:
    if case.target == "trimtab":
        yield Remedy(
            "look into plan.json and the drift that was accepted: a resume of trimtab goes on to the same bits"
        )
