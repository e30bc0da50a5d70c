"""learning-rate-too-low: updates are so small that the budget ends long before the model has learned what it could.

Looks for: rates that cannot move the weights (AdamW moves a weight by about the rate in each step, so the sum of all
    rates bounds how far it can get); weights that did not change; a loss that still falls as steadily in the second
    half as in the first, at a level that is still near the guess; one that ends near where it began, and fell as much
    for each bit of the rates that were added up, to the end.
    Fainter, as a remark: of another trainer's run, evaluations that all get better, and each quarter of the rates a
    third of what the best before it gained or more, with half of the loss left.
Why it matters: the run is not stuck, only slow: the same budget at a higher rate gives far more.
Evidence: the sum of the rates beside the size of the weights, both halves' progress, the level, the usual rate.
Remedy: three to ten times the rate; a range test.
False alarms: fine-tuning needs little movement: there the first loss is far better than a guess. A rate that is logged
    with few digits may read 0 all along: where the loss moved it was not.
Source: Kingma and Ba 2015, arXiv 1412.6980, section 2.1 (the bound on steps); Kaplan et al. 2020, equation D.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy, Withheld
from trimtab.doctor.reading.curves import Curve, Phases
from trimtab.doctor.reading.slow import bound, creeping, of_descent, slow, steady, still_gains, unmoved, usual
from trimtab.doctor.remedies import change, learning_rate_in_use, scaled_rate, sound_rate, uses_adam
from trimtab.runs import format

ENOUGH: Final = 3.0
FEWEST, FEWEST_ROWS = 24, 7
"""Training losses; with fewer the evaluations alone are judged."""
MOVED: Final = 0.05
"""Of the first loss: no order of the data moves it by as much while the weights stand."""


def check(case: Case) -> Iterator[Finding | Withheld]:
    """A warning when the signs make enough points."""
    curve = Curve.of(case.loss())
    if curve is None or len(curve) < FEWEST_ROWS or case.history.last_step < 0.3 * case.planned_steps:
        return
    if len(curve) < FEWEST:
        yield from _without_rates(case, curve)
        return
    phases = Phases.of(case.history.get("learning_rate"), curve.first_step, curve.last_step)
    rate = learning_rate_in_use(case)
    if not case.history.has("learning_rate") or (phases.peak == 0.0 and _has_moved(curve)):
        yield from _without_rates(case, curve)  # rates that a log rounds to nothing are not known either
        return
    if phases.peak == 0.0:
        yield _none(curve)
        return
    if curve.end > curve.start + 3 * curve.noise:
        return
    fall = list(slow(case, curve)) or list(steady(case, curve, phases))
    signs = [*bound(case), *unmoved(case), *fall, *creeping(case), *usual(case), *of_descent(case)]
    points = sum(weight for weight, _ in signs)
    if points < ENOUGH:
        yield from _perhaps(case, curve)
        return
    sound, higher = sound_rate(case), scaled_rate(case, 10)
    if sound is not None and uses_adam(case) and (rate is None or rate < sound):
        higher = float(f"{sound:.0e}")
    remedies = [change(case, f"raise the learning rate to {higher:g}", learning_rate=higher)] if higher else []
    by = (
        "trimtab find-lr" if case.target == "trimtab" else "raise the rate until the loss rises, and take a third of it"
    )
    remedies.append(Remedy(f"find the range by a short test: {by}"))
    yield Finding(
        "learning-rate-too-low",
        "warning",
        float(np.clip(0.6 + 0.1 * (points - ENOUGH), 0.5, 0.95)),
        curve.first_step,
        f"a learning rate of {phases.peak if rate is None else rate:.2g} hardly moves the weights: the loss came from "
        f"{format.decimal(curve.start)} to {format.decimal(curve.end)} only",
        tuple(evidence for weight, evidence in signs if weight > 0),
        remedies=tuple(remedies),
    )


def _has_moved(curve: Curve) -> bool:
    """Whether the loss moved by more than chance: then some rate was above 0."""
    return abs(curve.start - curve.end) > max(MOVED * abs(curve.start), 5.0 * curve.error(curve.width))


def _without_rates(case: Case, curve: Curve) -> Iterator[Finding | Withheld]:
    """What the loss alone tells: that it fell as steadily at the end as at the start, and hardly at all."""
    signs = list(slow(case, curve))
    if not signs:
        few = case.history.has("learning_rate") and len(curve) < FEWEST
        needs = f"{FEWEST} training losses or more" if few else "learning_rate"
        yield from list(_perhaps(case, curve)) or (Withheld("learning-rate-too-low", (needs,)),)
        return
    remedies = [Remedy("find the range by a short test: raise the rate until the loss rises, and take a third of it")]
    if not case.history.has("learning_rate"):
        remedies.append(Remedy("log the learning rate, so that its height can be judged"))
    yield Finding(
        "learning-rate-too-low",
        "warning",
        0.6,
        curve.first_step,
        f"the weights hardly move: the loss came from {format.decimal(curve.start)} to {format.decimal(curve.end)} "
        "only, and each evaluation was as much better as a schedule lets expect, to the end",
        tuple(evidence for _, evidence in signs),
        remedies=tuple(remedies),
    )


def _perhaps(case: Case, curve: Curve) -> Iterator[Finding]:
    """A remark on another trainer's run that gained to its end: a higher rate may give more, and so may more steps."""
    evidence = still_gains(case)
    if evidence is None or case.target == "trimtab" or case.history.last_step < case.planned_steps:
        return
    yield Finding(
        "learning-rate-too-low",
        "info",
        0.5,
        curve.first_step,
        "the loss fell to the end as it did before: either a higher learning rate or more steps may give more",
        (evidence,),
        remedies=(Remedy("try three times the learning rate over the same steps"),),
    )


def _none(curve: Curve) -> Finding:
    """What to say of a rate that was 0 all along."""
    steps = curve.first_step, curve.last_step
    return Finding(
        "learning-rate-too-low",
        "error",
        0.97,
        curve.first_step,
        "the learning rate is 0 in every step: nothing is learned",
        (Evidence("learning_rate", steps, 0.0, None, f"the rate is 0 from step {steps[0]:,} to {steps[1]:,}"),),
        remedies=(Remedy("look at the schedule: is the rate 0 from the start, or never stepped?"),),
    )
