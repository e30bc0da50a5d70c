"""divergence: the loss leaves for good.

Looks for: a training loss whose smoothed end lies above its smoothed floor by far more than noise and by a good part of
    all that had been gained, and that has not come back since it left; or one that only ever rose.
Why it matters: what was learned is lost, and every further step costs compute for nothing.
Evidence: floor and end of the loss, the step where it left, and what the rate and the gradient did there.
Remedy: go back to a checkpoint before, with a lower learning rate, more warm-up or clipping; where the rate is usual,
    keep the best weights, and look for what else changes them.
False alarms: data that becomes harder by plan (a curriculum), when the loss then falls again from its new height.
Source: own; the distinction from spikes after Chowdhery et al. 2022, arXiv 2204.02311, section 5.1.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.curves import Curve
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.remedies import (
    kept_checkpoint,
    learning_rate_in_use,
    longer_warmup,
    lower_rate,
    sound_rate,
    uses_adam,
)
from trimtab.runs import format

PART_OF_DESCENT = 0.2
NOISES = 8.0
LASTS = 0.12
"""Part of the run for which a low rise must have lasted: a loss that swings is unsteady, and has not left."""


def check(case: Case) -> Iterator[Finding]:
    """An error: the loss left and stayed away."""
    curve = Curve.of(case.loss())
    if curve is None or len(curve) < 12:
        return
    floor_at = int(np.argmin(curve.smoothed))
    risen = curve.end - curve.floor
    error = curve.error(max(3, len(curve) // 20))
    needed = max(
        PART_OF_DESCENT * curve.descent,
        NOISES * error,
        2.0 * curve.noise,
        0.02 * abs(curve.floor) if curve.descent > 0.1 * abs(curve.start) else 0.1 * abs(curve.start),
    )
    if risen < needed or floor_at >= len(curve) - 3:
        return
    onset_at = _left_at(curve, floor_at, curve.floor + max(0.03 * risen, 2.5 * curve.error(curve.width)))
    after = curve.values[onset_at:]
    lasts = len(after) >= LASTS * len(curve) or risen > 0.6 * curve.descent
    if len(after) < 5 or not lasts or _comes_back(curve, onset_at, risen):
        return
    onset = int(curve.steps[onset_at])
    evidence = [
        Evidence(
            "train/loss",
            (onset, curve.last_step),
            curve.end,
            curve.floor,
            f"the loss rose from {format.decimal(curve.floor)} at step {int(curve.steps[floor_at]):,} to "
            f"{format.decimal(curve.end)} at the end, {risen / max(curve.noise, 1e-12):.0f} times the noise of a step",
        )
    ]
    evidence += _company(case, onset)
    above = curve.end > curve.start
    yield Finding(
        "divergence",
        "error",
        0.95 if risen > 0.5 * curve.descent else 0.8,
        onset,
        f"the training loss left at step {onset:,} and did not come back: "
        + (
            f"it ends at {format.decimal(curve.end)}, above where it began"
            if above
            else f"{100 * min(risen / curve.descent, 99):.0f} % of what it had gained is lost"
        ),
        tuple(evidence),
        remedies=(
            _back(case, onset),
            *_best_kept(case),
            lower_rate(case),
            *longer_warmup(case),
        ),
    )


def _left_at(curve: Curve, floor_at: int, threshold: float) -> int:
    """Index of the last value on the way up that was still below `threshold`, smoothed."""
    below = np.flatnonzero(curve.smoothed[floor_at:] <= threshold)
    return floor_at + int(below[-1])


def _comes_back(curve: Curve, onset_at: int, risen: float) -> bool:
    """Whether it was near its floor again after it had left, or is on its way: it swings, or a spike is not over."""
    after = curve.smoothed[onset_at:]
    away = np.flatnonzero(after >= curve.floor + 0.5 * risen)
    if len(away) and float(after[away[0] :].min()) < curve.floor + 0.35 * risen:
        return True
    peak = float(after.max())
    return peak - curve.end > max(0.5 * (peak - curve.floor), 3 * curve.noise) and peak - curve.floor < 3 * risen


def _company(case: Case, onset: int) -> Iterator[Evidence]:
    """What the gradient did when the loss left."""
    norms = Curve.of(case.history.get("grad_norm"))
    if norms is None:
        return
    before, after = norms.between(norms.first_step, onset), norms.between(onset, norms.last_step)
    if before is None or after is None or len(before) < 4:
        return
    usual, largest = float(np.median(before.values)), float(after.values.max())
    if usual > 0 and largest > 3 * usual:
        yield Evidence(
            "grad_norm",
            (onset, norms.last_step),
            largest,
            usual,
            f"the gradient norm rose from {format.decimal(usual)} to {format.decimal(largest)} at most",
        )


def _best_kept(case: Case) -> Iterator[Remedy]:
    """Where the rate is no higher than others have it, a lower one is not what it lacks."""
    rate, usual = learning_rate_in_use(case), sound_rate(case)
    is_usual = uses_adam(case) and rate is not None and usual is not None and rate <= usual
    if case.target == "trimtab" and is_usual and case.setting("stopping.name") == "none":
        yield Remedy(
            f"keep the weights from before: the rate is not above what is usual at this size, {usual:.1g}, so look for "
            "what else changes weights (the sign of weight decay, code of one's own in the step)",
            "trimtab",
            {"stopping.name": "patience", "stopping.patience": 3},
        )


def _back(case: Case, onset: int) -> Remedy:
    step = kept_checkpoint(case, onset)
    if step is not None:
        return Remedy(f"go back to the checkpoint of step {step:,}, before the loss left, with a lower rate")
    return Remedy("begin again with a lower rate: no checkpoint from before is kept")
