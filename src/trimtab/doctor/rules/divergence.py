"""divergence: the loss leaves for good.

Looks for: a training loss whose smoothed end lies above its smoothed floor by far more than noise and by a good part of
    all that had been gained, and that has not come back since it left; or one that only ever rose, also if it was on
    its way up for a few values and then no number for the rest of the run. Or a validation loss that ends at twice what
    it began with and more, while the training loss is on average above its start, too: where answers become huge most
    batches may be right for good and cost nothing, and some cost all. Where layers are measured also weights of all of
    them that grow by one and the same part of themselves in each step to the end, once the loss is past its best; or,
    where the gradient is exactly 0, a validation loss that grows by the same factor at each evaluation.
Why it matters: what was learned is lost, and every further step costs compute for nothing.
Evidence: floor and end of the loss, the step where it left, and what the rate and the gradient did there.
Remedy: go back to a checkpoint before, with a lower learning rate, more warm-up or clipping; where the rate is usual,
    keep the best weights, and look for what else changes them.
False alarms: data that becomes harder by plan (a curriculum), when the loss then falls again from its new height.
    The last batches, where the last evaluation of both sets is the best.
    Objectives of games and rewards, where the log shows that they are (`doctor/reading/objectives.py`); of one without
    evaluations a loss that begins near 0 and only rises is not taken, and one that had hardly come down is a remark,
    unless it rises at once and by twenty times the noise of a step.
    So is, in another trainer's log, a rise to less than the first loss beside a gradient that does not grow: a term
    that is let in by plan does as much; a warning where nearly all of the large part that had been gained is lost.
    Where the gradient is exactly 0 nothing is learned any more, and weight decay alone moves the loss: a plateau.
Source: own; the distinction from spikes after Chowdhery et al. 2022, arXiv 2204.02311, section 5.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.departures import (
    GAINED,
    PLAYS,
    Departure,
    begun_at,
    broke_off,
    is_level_of_its_own,
    is_swift,
    latest,
    left,
    left_in_evaluations,
)
from trimtab.doctor.reading.evaluations import no_gradient_since
from trimtab.doctor.reading.medians import median
from trimtab.doctor.reading.restarts import thrown_by_burst
from trimtab.doctor.reading.thrown import growing, grows_without_gradient
from trimtab.doctor.remedies import (
    kept_checkpoint,
    learning_rate_in_use,
    longer_warmup,
    lower_rate,
    sound_rate,
    uses_adam,
)
from trimtab.doctor.rules.nan_loss import rate_too_high
from trimtab.runs import format

CODE: Final = "divergence"
GUESSES: Final = 0.85
"""Of what had been gained: a loss that loses that is back at what guessing costs."""


def check(case: Case) -> Iterator[Finding]:
    """An error: the loss left and stayed away, as training or evaluation tell, whichever saw it clearly earlier."""
    if known := list(_multiplied(case)):
        yield from known
        return
    curve, validation = Curve.of(case.loss()), Curve.of(case.validation_loss())
    if curve is not None and (broke := _broke_off(case, curve)) is not None:
        yield broke
        return
    if curve is None or len(curve) < 12 or no_gradient_since(case, curve) is not None or thrown_by_burst(case, curve):
        return
    judged = None if validation is None else _in_evaluation(case, curve, validation)
    trained = _in_training(case, curve)
    if judged is not None and validation is not None:
        slack = 2 * median(np.diff(validation.steps))
        if trained is None or judged.onset_step < trained.onset_step - slack:
            yield judged
            return
    if trained is not None:
        yield trained


def _multiplied(case: Case) -> Iterator[Finding]:
    """Weights that all grow by the same part in each step to the end, once the loss is past its best."""
    curve, judged = Curve.of(case.loss()), Curve.of(case.validation_loss()) or Curve.of(case.loss())
    if judged is None or judged.end <= 1.01 * judged.floor:
        return
    lost = f"the loss was {format.decimal(judged.floor)} at best, and is {format.decimal(judged.end)} at the end"
    past = Evidence("validation/loss", (judged.first_step, judged.last_step), judged.end, judged.floor, lost)
    if (found := growing(case)) is not None:
        each = found.times ** (1.0 / max(found.end - found.begin, 1)) - 1.0
        onset, cause = found.begin + 1, "all weights grow by the same part of themselves in each step"
        told = f"the weights of all layers grew {found.times:,.1f}-fold, by {each:.1%} in each step"
        metric = "layer/*/weight_norm"
    elif curve is not None and (found := grows_without_gradient(case, curve)) is not None:
        onset = int(judged.steps[int(np.argmin(judged.values))])
        cause, metric = "no gradient reaches any weight, and all weights grow", "validation/loss"
        told = f"the validation loss grew {found.times:,.0f}-fold, evenly, where the norm of the whole gradient is 0"
    else:
        return
    yield Finding(
        CODE,
        "error",
        0.9,
        onset,
        f"{cause}, and the loss leaves with them: something multiplies them, as a weight decay of the wrong sign does",
        (
            Evidence(
                metric, (found.begin, found.end), found.times, 1.0, f"from step {found.begin:,} to {found.end:,} {told}"
            ),
            past,
        ),
        remedies=(Remedy("look at the sign of the weight decay, and at what else writes the weights"),),
    )


def _broke_off(case: Case, curve: Curve) -> Finding | None:
    """A loss that was on its way up, value by value, and then no number for the rest of the run."""
    series = case.loss()
    if series is None or (bad := series.first_bad_step) is None or np.isfinite(series.last):
        return None
    if rate_too_high(case, bad) is not None:
        return None  # which says more of why
    if (found := broke_off(curve, bad)) is None:
        return None
    told = (
        f"the loss rose from {format.decimal(found.lowest)} at step {found.onset:,} to {format.decimal(found.end)} at "
        f"step {found.last:,}, and was no number from step {bad:,} on"
    )
    return _lost(
        case,
        found,
        0.8,
        f"the training loss left at step {found.onset:,} and did not come back: it ends in no number",
        Evidence("train/loss", (found.onset, found.last), found.end, found.lowest, told),
    )


def _in_training(case: Case, curve: Curve) -> Finding | None:
    """A training loss whose level left."""
    if (found := left(case, curve)) is None:
        return None
    onset, risen = found.onset, found.end - found.lowest
    told = (
        f"the loss rose from {format.decimal(found.lowest)} at step {found.lowest_step:,} to "
        f"{format.decimal(found.end)} at the end, {risen / max(curve.noise, 1e-12):.0f} times the noise of a step"
    )
    company, above = [*_company(case, onset)], curve.end > curve.start
    sure = case.target == "trimtab" or bool(company) or (above and not is_level_of_its_own(case, curve))
    gained = curve.descent > GAINED * abs(curve.start) or (curve.descent > PLAYS * curve.noise and is_swift(curve))
    guesses = gained and risen > GUESSES * curve.descent
    return Finding(
        CODE,
        "error" if sure else "warning" if guesses else "info",
        (0.95 if risen > 0.5 * curve.descent else 0.8) if sure else 0.7 if guesses else 0.5,
        onset,
        f"the training loss left at step {onset:,} and did not come back"
        + (": " if sure else ", or what is minimized was changed there: ")
        + (
            f"it ends at {format.decimal(curve.end)}, above where it began"
            if above
            else f"{100 * min(risen / curve.descent, 99):.0f} % of what it had gained is lost"
        ),
        (Evidence("train/loss", (onset, found.last), found.end, found.lowest, told), *company),
        remedies=(_back(case, onset), *_best_kept(case), lower_rate(case, onset=onset), *longer_warmup(case)),
    )


def _in_evaluation(case: Case, curve: Curve, validation: Curve) -> Finding | None:
    """A validation loss that is far above where it began, beside a training loss that is so on average."""
    if (found := left_in_evaluations(curve, validation)) is None:
        return None
    late, end = latest(curve), format.decimal(found.end)
    mean = float(late.values.mean())
    rose = (
        f"the validation loss rose from {format.decimal(found.lowest)} to {end}, where it began at "
        f"{format.decimal(begun_at(curve, validation))}"
    )
    trained = (
        f"the training loss is {format.decimal(late.median)} in most of the last steps, and "
        f"{format.decimal(float(late.values.max()))} in others: {format.decimal(mean)} on average"
    )
    return _lost(
        case,
        found,
        0.9,
        f"the loss left at step {found.onset:,} and did not come back: the validation loss ends at {end}, "
        "far above where it began",
        Evidence("validation/loss", (found.onset, found.last), found.end, found.lowest, rose),
        Evidence("train/loss", (late.first_step, late.last_step), mean, curve.start, trained),
    )


def _lost(case: Case, found: Departure, confidence: float, cause: str, *evidence: Evidence) -> Finding:
    return Finding(
        CODE,
        "error",
        confidence,
        found.onset,
        cause,
        (*evidence, *_company(case, found.onset)),
        remedies=(_back(case, found.onset), lower_rate(case, onset=found.onset), *longer_warmup(case)),
    )


def _company(case: Case, onset: int) -> Iterator[Evidence]:
    """What the gradient did when the loss left."""
    norms = Curve.of(case.history.get("grad_norm"))
    if norms is None:
        return
    before, after = norms.between(norms.first_step, onset), norms.between(onset, norms.last_step)
    if before is None or after is None or len(before) < 4:
        return
    usual, largest = median(before.values), float(after.values.max())
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
    if case.target != "trimtab":
        return Remedy("go on from a checkpoint before that step with a lower rate, or begin again with one")
    return Remedy("begin again with a lower rate: no checkpoint from before is kept")
