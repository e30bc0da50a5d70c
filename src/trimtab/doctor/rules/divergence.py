"""divergence: the loss leaves for good.

Looks for: a training loss whose smoothed end lies above its smoothed floor by far more than noise and by a good part of
    all that had been gained, and that has not come back since it left; or one that only ever rose, also if it was on
    its way up for a few values and then no number for the rest of the run. Or a validation loss that ends at twice what
    it began with and more, while the training loss is on average above its start, too: where answers become huge most
    batches may be right for good and cost nothing, and some cost all. Where layers are measured also weights of all of
    them that grow by one and the same part of themselves in each step to the end, once the loss is past its best.
Why it matters: what was learned is lost, and every further step costs compute for nothing.
Evidence: floor and end of the loss, the step where it left, and what the rate and the gradient did there.
Remedy: go back to a checkpoint before, with a lower learning rate, more warm-up or clipping; where the rate is usual,
    keep the best weights, and look for what else changes them.
False alarms: data that becomes harder by plan (a curriculum), when the loss then falls again from its new height.
    The last batches, where the last evaluation of both sets is the best.
    Objectives of games and rewards, where the log shows that they are (`doctor/reading/objectives.py`); of one without
    evaluations a loss that begins near 0 and only rises is not taken, and one that had hardly come down is a remark.
    So is, in another trainer's log, a rise to less than the first loss beside a gradient that does not grow: a term
    that is let in by plan does as much; a warning where nearly all of the large part that had been gained is lost.
    Where the gradient is exactly 0 nothing is learned any more, and weight decay alone moves the loss: a plateau.
Source: own; the distinction from spikes after Chowdhery et al. 2022, arXiv 2204.02311, section 5.1.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.curves import Curve, resolution
from trimtab.doctor.reading.evaluations import no_gradient_since
from trimtab.doctor.reading.objectives import BLOWN, moved_by
from trimtab.doctor.reading.restarts import thrown_by_burst
from trimtab.doctor.reading.thrown import multiplied
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

PART_OF_DESCENT = 0.2
NOISES = 8.0
FAR = 2.0
"""Times the first, of a validation loss that has left."""
ROSE = 1.2
"""Times its lowest, of a loss that was on its way up before it was no number."""
NEARLY = 0.9
"""Of a rise that is still being made good."""
REGAINED = 0.7
"""Of a rise: a spike that the rest of the run was too short to make good."""
NOTHING, NEAR_NOTHING = 0.1, 0.1
"""A loss that begins so low, at such a part of where it ends, had nothing to predict yet."""
MOST = 0.85
"""The same, of one that was far above where the run began."""
GAINED, OF_RISE, HUGE = 0.5, 0.7, 5.0
"""Of the loss at the start and of the rise, where less had been gained; and times the first losses, where more is no
level of any game."""
GUESSES = 0.85
"""Of what had been gained: a loss that loses that is back at what guessing costs."""
LASTS = 0.12
"""Part of the run for which a low rise must have lasted: a loss that swings is unsteady, and has not left."""


def check(case: Case) -> Iterator[Finding]:
    """An error: the loss left and stayed away, as training or evaluation tell, whichever saw it clearly earlier."""
    if known := list(multiplied(case)):
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
        slack = 2 * float(np.median(np.diff(validation.steps)))
        if trained is None or judged.onset_step < trained.onset_step - slack:
            yield judged
            return
    if trained is not None:
        yield trained


def _broke_off(case: Case, curve: Curve) -> Finding | None:
    """A loss that was on its way up, value by value, and then no number for the rest of the run."""
    series = case.loss()
    if series is None or series.first_bad_step is None or np.isfinite(series.last):
        return None
    if rate_too_high(case, series.first_bad_step) is not None:
        return None  # which says more of why
    before = curve.between(curve.first_step, series.first_bad_step - 1)
    if before is None or len(before) < 2:
        return None
    lowest_at = int(np.argmin(before.values))
    lowest, last = float(before.values[lowest_at]), float(before.values[-1])
    rises = before.values[lowest_at:]
    steady = len(rises) >= 2 and bool((np.diff(rises[-3:]) > 0).all())
    noise = before.noise if len(before) >= 6 else 0.0
    if not steady or last < ROSE * abs(lowest) or last < before.start or last - lowest < NOISES * noise:
        return None
    # The lowest may be any of many that are as low: it left after the last of these.
    level = lowest + max(0.03 * min(last - lowest, abs(lowest)), 2.5 * noise)
    onset_at = int(np.flatnonzero(before.values <= level)[-1])
    onset = int(before.steps[onset_at])
    told = (
        f"the loss rose from {format.decimal(float(before.values[onset_at]))} at step {onset:,} to "
        f"{format.decimal(last)} at step {before.last_step:,}, and was no number from step {series.first_bad_step:,} on"
    )
    return Finding(
        "divergence",
        "error",
        0.8,
        onset,
        f"the training loss left at step {onset:,} and did not come back: it ends in no number",
        (Evidence("train/loss", (onset, before.last_step), last, lowest, told), *_company(case, onset)),
        remedies=(_back(case, onset), lower_rate(case), *longer_warmup(case)),
    )


def _is_best_judged(case: Case, curve: Curve) -> bool:
    """Whether the last of several evaluations, on fixed samples of both sets and at the end of training, is the best:
    then what the last batches cost is of these batches."""
    judged = [Curve.of(case.validation_loss()), Curve.of(case.evaluated("training_slice/loss"))]
    return all(
        one is not None
        and len(one) >= 4
        and one.last_step >= curve.last_step
        and int(np.argmin(one.values)) == len(one) - 1
        for one in judged
    )


def _in_training(case: Case, curve: Curve) -> Finding | None:
    """A training loss whose level left."""
    floor_at = int(np.argmin(curve.smoothed))
    risen = curve.end - curve.floor
    error = curve.error(max(3, len(curve) // 20))
    needed = max(
        PART_OF_DESCENT * curve.descent,
        NOISES * error,
        2.0 * curve.noise,
        0.02 * abs(curve.floor) if curve.descent > 0.1 * abs(curve.start) else 0.1 * abs(curve.start),
    )
    if risen < needed or floor_at >= len(curve) - 3 or _by_design(case, curve) or _is_best_judged(case, curve):
        return None
    onset_at = _left_at(curve, floor_at, curve.floor + max(0.03 * risen, 2.5 * curve.error(curve.width)))
    after = curve.values[onset_at:]
    lasts = len(after) >= LASTS * len(curve) or risen > 0.6 * curve.descent
    if len(after) < 5 or not lasts or _comes_back(curve, onset_at, risen):
        return None
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
    company = [*_company(case, onset)]
    evidence += company
    above = curve.end > curve.start
    sure = case.target == "trimtab" or bool(company) or (above and not _is_level_of_its_own(case, curve))
    guesses = risen > GUESSES * curve.descent and curve.descent > GAINED * abs(curve.start)
    return Finding(
        "divergence",
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
        tuple(evidence),
        remedies=(
            _back(case, onset),
            *_best_kept(case),
            lower_rate(case),
            *longer_warmup(case),
        ),
    )


def _by_design(case: Case, curve: Curve) -> bool:
    """Whether it may rise as it is learned: it begins near nothing and was never clearly lower, as a Q function's does,
    a critic's or a policy's, whose start is no level that a model has gained and can lose; or it moves by itself."""
    if moved_by(case) is not None:
        first = float(np.abs(curve.values[: max(8, len(curve) // 4)]).max())
        return curve.end < BLOWN * max(first, 1.0)
    gained = curve.descent >= max(0.1 * (curve.end - curve.start), curve.noise)
    near_nothing = curve.start <= max(resolution(curve.values), min(NOTHING, NEAR_NOTHING * curve.end))
    return near_nothing and not gained and case.validation_loss() is None


def _is_level_of_its_own(case: Case, curve: Curve) -> bool:
    """Whether no evaluation tells that something was lost, less than half had been gained, and it has not blown up: so
    rises what is played against another network."""
    highest = float(np.abs(curve.values[:3]).max())
    return (
        case.validation_loss() is None
        and curve.descent < min(GAINED * abs(curve.start), OF_RISE * (curve.end - curve.floor))
        and float(curve.values.max()) < HUGE * highest
    )


def _in_evaluation(case: Case, curve: Curve, validation: Curve) -> Finding | None:
    """A validation loss that is far above where it began, beside a training loss that is so on average."""
    if len(validation) < 4:
        return None
    late = curve.values[-max(5, len(curve) // 5) :]
    lowest_at, begun = int(np.argmin(validation.values)), max(curve.start, float(validation.values[0]))
    end, mean = float(validation.values[-1]), float(late.mean())
    if not begun > 0.0 or end < FAR * begun or mean < begun or len(validation) - lowest_at < 4:
        return None
    lowest = float(validation.values[lowest_at])
    onset_at = int(np.flatnonzero(validation.values <= lowest + 0.05 * (begun - lowest))[-1])
    onset = int(validation.steps[onset_at])
    return Finding(
        "divergence",
        "error",
        0.9,
        onset,
        f"the loss left at step {onset:,} and did not come back: the validation loss ends at {format.decimal(end)}, "
        "far above where it began",
        (
            Evidence(
                "validation/loss",
                (onset, validation.last_step),
                end,
                lowest,
                f"the validation loss rose from {format.decimal(lowest)} to {format.decimal(end)}, where it began at "
                f"{format.decimal(begun)}",
            ),
            Evidence(
                "train/loss",
                (int(curve.steps[-len(late)]), curve.last_step),
                mean,
                curve.start,
                f"the training loss is {format.decimal(float(np.median(late)))} in most of the last steps, and "
                f"{format.decimal(float(late.max()))} in others: {format.decimal(mean)} on average",
            ),
            *_company(case, onset),
        ),
        remedies=(_back(case, onset), lower_rate(case), *longer_warmup(case)),
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
    highest = float(curve.values[onset_at:].max())
    since = after[int(np.argmax(after)) :]
    late = curve.values[-max(4, len(since) // 2) :]
    if (
        len(since) >= 8
        and highest - curve.end > NEARLY * (highest - curve.floor)
        and curve.error(len(late) // 2) * 3.0
        < float(np.median(late[: len(late) // 2]) - np.median(late[len(late) // 2 :]))
    ):
        return True  # nearly all is made good, and the rest goes on to be
    if (
        highest - curve.end > REGAINED * (highest - curve.floor)
        and (
            curve.end < curve.floor + 0.5 * curve.descent
            or (curve.end < curve.start and highest - curve.end > MOST * (highest - curve.floor))
        )
        and len(since) >= 8
        and float(np.median(since[len(since) // 2 :])) < float(np.median(since[: len(since) // 2]))
    ):
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
    if case.target != "trimtab":
        return Remedy("go on from a checkpoint before that step with a lower rate, or begin again with one")
    return Remedy("begin again with a lower rate: no checkpoint from before is kept")
