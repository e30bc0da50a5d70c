"""corrupt-batch: a spike that is traced to one batch.

Looks for: a training loss that is far too high, or not finite, in a single step, and where it was before in the next.
    The loss of a step is that of its batch before the update: weights that an update has damaged take steps to mend,
    so what is back at once was the batch. It must stand out by eight times the noise there, by three tenths of all
    that was gained, and by twice what batches reach elsewhere; up to five such batches. The alerts of a run of ours
    name its samples.
Why it matters: such a batch moves the weights by nonsense, however sound all else is; in every epoch it comes again.
Evidence: the losses of the step and of its neighbours, the gradient norm there, the samples, and whether it comes
    again at the distance of an epoch.
Remedy: look at those samples, and leave them out; skip updates far from others (`gradients.skip`), which costs one
    step.
False alarms: data of mixed difficulty, whose hard batches reach as far again and again; with fp16, a loss scale that
    is being found. At the top of a warm-up, and where gradients grew in the steps before, the weights may have done
    it: then it is told only if it comes again or is traced. Losses that are means over several steps show no single
    step: then it stays a loss-spike.
Source: own; Chowdhery et al. 2022, arXiv 2204.02311, section 5.1, who find spikes by batch and state together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.classes import num_classes
from trimtab.doctor.reading.curves import Curve, running_median
from trimtab.doctor.reading.medians import median, quantile
from trimtab.doctor.reading.once import once
from trimtab.runs import format
from trimtab.runs.history import Series
from trimtab.runs.printable import printable

CODE: Final = "corrupt-batch"
NOISES: Final = 8.0
PART: Final = 0.3
GRAVE: Final = 0.5
"""Of all that was gained: from there on it is a warning, whatever else is known of it."""
FAR: Final = 18.0
"""Times the noise: the same, of errors that are squared or of an unknown kind."""
CLEAR: Final = 2.0
"""Times the highest of all other steps."""
MOST_APART: Final = 10
"""Steps from one logged loss to the next: weights that were damaged take longer to mend."""
BETWEEN: Final = 0.2
"""Of the gaps, that evaluations may make."""
EASED: Final = 0.7
"""Of these bounds, where the gradient stands out in the same step, too."""
ALONE: Final = 4.0
"""Times its usual size: such a gradient."""
MOST: Final = 5
"""More such batches are the nature of the data, but for one that comes again in each epoch."""
FEWEST: Final = 40
RESTLESS: Final = 5
"""Steps before: where two of them had gradients of twice their usual size, the weights were unsteady."""
LEAST_WARMUP: Final = 5


def check(case: Case) -> Iterator[Finding]:
    """A warning; a remark on one that is not traced, and stands out by little."""
    series = case.loss()
    if series is None or series.width > 1 or len(series) < FEWEST:
        return
    steps, values = series.steps, series.mean
    apart = np.diff(steps)
    every = int(apart[0]) if (apart == apart[0]).all() else int(median(apart))
    # A row more or less at the ends is none of the rhythm, and so is one of an evaluation where rows are counted.
    gaps = apart[1:-1]
    uneven = gaps != every
    if every == 1 and case.target != "trimtab" and (gaps <= 2).all():
        uneven &= float(uneven.mean()) > BETWEEN
    if every > MOST_APART or uneven.any() or case.history.has("loss_scale"):
        return
    witness = _witness(case, series)
    high, usual, noise = outliers_of(series, EASED if witness else 1.0)
    bad = _lone_bad(values)
    places = np.flatnonzero(high | bad)
    again = _period(case, places)
    if not len(places) or (len(places) > MOST and again is None):
        return
    if again is None and not _samples(case, set(steps[places].tolist())):
        # Nothing traces it to its batch: where weights are unsteady, they may have done it.
        unsteady = unsteady_places(case, series.steps, places).tolist()
        places = np.array([place for place in places.tolist() if place not in unsteady], np.int64)
        if not len(places):
            return
    onset = int(steps[places[0]]) - (every - 1 if case.target == "huggingface" else 0)  # which logs means
    evidence = [*_evidence(case, steps, values, usual, noise, places)]
    if again is not None:
        told = f"it comes again every {again:,} steps, which is an epoch: the same samples do it each time"
        evidence.append(Evidence("train/loss", (onset, int(steps[places[-1]])), float(again), None, told))
    if samples := _samples(case, {int(steps[place]) for place in places.tolist()}):
        evidence.append(Evidence("alerts", (onset, onset), None, None, samples))
    part = float(np.nan_to_num(values[places] - usual[places], nan=np.inf).max())
    descent = max(float(np.nanmedian(values[: max(1, len(values) // 100)]) - np.nanmin(values)), 0.0)
    heights = (values[places] - usual[places]) / np.maximum(noise[places], 1e-12)
    # Squared errors have a tail of their own; probabilities have hardly one.
    far = NOISES if case.fact("task") != "regression" and num_classes(case) is not None else FAR
    clear = float(np.nan_to_num(heights, nan=np.inf).max()) > far
    grave = again is not None or bool(samples) or (part >= GRAVE * descent and (clear or witness))
    skips = case.target == "trimtab" and case.setting("gradients.skip.name") == "none"
    yield Finding(
        CODE,
        "warning" if grave else "info",
        0.9 if again is not None or samples else 0.8 if grave else 0.6,
        onset,
        f"the batch of step {onset:,} is damaged or of another kind: the loss jumped in that step alone"
        if every == 1
        else f"a batch about step {onset:,} is damaged or of another kind: the loss jumped in one logged value alone"
        + (f", and in {format.count(len(places) - 1)} more" if len(places) > 1 else ""),
        tuple(evidence),
        remedies=(
            Remedy(f"look at the samples of step {onset:,}, and leave out those that are damaged"),
            *([Remedy("skip updates far from others", "trimtab", {"gradients.skip.name": "spike"})] if skips else []),
        ),
    )


def unsteady_places(case: Case, steps: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those up to twice the warm-up, where the rate first meets the weights, and those before which gradients grew."""
    rates, norms = Curve.of(case.history.get("learning_rate")), Curve.of(case.history.get("grad_norm"))
    until = early_until(rates)
    found = []
    for place in places.tolist():
        step = int(steps[place])
        grew = False
        if norms is not None and (near := norms.between(step - RESTLESS, step - 1)) is not None:
            around = norms.level(step - 5 * RESTLESS, step + 5 * RESTLESS)
            grew = int((near.values > 2.0 * around).sum()) >= 2
        if step <= until or grew:
            found.append(place)
    return np.array(found, np.int64)


def early_until(rates: Curve | None) -> int:
    """The last step at which a rise of the loss may come of the rate's first height; 0 without a warm-up."""
    return 0 if rates is None else _early_until(rates)


@once
def _early_until(rates: Curve) -> int:
    top = int(rates.steps[rates.values >= 0.99 * rates.lower_quantile(0.95)][0])
    return 2 * top if top >= LEAST_WARMUP and rates.values[0] < 0.5 * float(rates.values.max()) else 0


def _witness(case: Case, series: Series) -> bool:
    """Whether the gradient norm stands out where the loss is highest, by itself and more than anywhere else."""
    norms = case.history.get("grad_norm")
    if norms is None or norms.width > 1 or not np.array_equal(norms.steps, series.steps):
        return False
    values, curve = np.where(np.isfinite(norms.mean), norms.mean, 0.0), Curve.of(series)
    begin = len(values) // 4  # earlier the weights themselves are unsteady
    if curve is None or len(values) - begin < FEWEST:
        return False
    if float(values[begin:].max()) <= ALONE * float(values[max(begin - 7, 0) :].min()):
        return False  # nowhere
    whole = len(curve) == len(series)
    loss = (series.mean - (curve.running_median(15) if whole else running_median(series.mean, 15)))[begin:]
    if not np.isfinite(loss).any():
        return False
    at = int(np.nanargmax(loss))
    near = values[begin + at - 7 : begin + at + 8]
    if len(near) == 15 and values[begin + at] / max(median(near), 1e-12) <= ALONE:
        return False  # as nearly always, without the others
    late = (values / np.maximum(running_median(values, 15), 1e-12))[begin:]
    return bool(late[at] > ALONE and late[at] > CLEAR * np.delete(late, at).max())


def outliers_of(
    series: Series, ease: float = 1.0
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """Single steps whose loss stands out while the next is as before; the level before, and the noise there.

    `ease` is what the bounds are multiplied by.
    """
    values, curve = series.mean, Curve.of(series)
    finite = np.isfinite(values)
    if curve is None:
        return ~finite & False, values, np.zeros(len(values))
    if len(curve) < len(values):
        filled = np.interp(np.arange(len(values)), np.flatnonzero(finite), values[finite])
        curve = Curve(np.arange(len(filled)), filled)
    filled = curve.values
    none = np.zeros(len(filled), np.bool_)
    above = filled - curve.running_median(5)
    if float(above.max()) < 0.9 * max(PART * curve.descent, 0.05 * abs(curve.end)):
        return none, filled, np.full(len(filled), curve.noise)  # what follows takes its time
    width = max(15, len(filled) // 20)
    usual = curve.trailing_median(width)
    excess = np.where(np.isfinite(usual), filled - usual, 0.0)
    # What 98 in 100 steps stay below, twice; and twice as far as the noise reaches down.
    reach = max(2.5 * quantile(excess[width // 2 :], 0.98), -2.0 * float(excess[len(excess) // 5 :].min()))
    least = max(NOISES * curve.noise, PART * curve.descent, reach, 0.05 * abs(curve.end))
    next_excess, before = np.append(excess[1:], 0.0), np.insert(excess[:-1], 0, 0.0)
    after_next = np.append(next_excess[1:], 0.0)
    alone = (next_excess < 0.3 * excess) & (after_next < 0.3 * excess) & (before < 0.3 * excess)
    high = (excess > ease * least) & alone & finite
    high[: max(8, len(filled) // 50)] = False
    noise = curve.local_noise(2 * width, np.flatnonzero(high))  # of all others it is not asked
    high &= excess > ease * np.maximum(NOISES * noise, least)
    # Hard batches reach ever a little farther than others; what is of another kind stands by itself.
    others = float(excess[~high][width // 2 :].max(initial=0.0))
    high &= excess > ease * CLEAR * others
    return high, usual, noise


def _lone_bad(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Steps whose loss is not finite while those around them are; none where they are many, or where a run ends so."""
    bad = ~np.isfinite(values)
    if not bad.any() or bad[-1] or bad[0] or bad.mean() > 0.03:
        return np.zeros_like(bad)
    alone: NDArray[np.bool_] = bad & ~np.append(bad[1:], True) & ~np.insert(bad[:-1], 0, True)
    return alone if (alone == bad).all() else np.zeros_like(bad)


def _period(case: Case, places: NDArray[np.int64]) -> int | None:
    """The steps from one to the next, where these are equal and three at least."""
    if len(places) < 3:
        return None
    gaps = np.diff(places)
    middle = median(gaps)
    if middle < 5 or float(np.abs(gaps - middle).max()) > max(1.0, 0.02 * middle):
        return None
    return round(middle)


def _evidence(
    case: Case,
    steps: NDArray[np.int64],
    values: NDArray[np.float64],
    usual: NDArray[np.float64],
    noise: NDArray[np.float64],
    places: NDArray[np.int64],
) -> Iterator[Evidence]:
    norms = case.history.get("grad_norm")
    means = None if norms is None or norms.width > 1 else norms.mean
    middle = 0.0 if means is None else median(means[~np.isnan(means)])
    order = np.argsort(-np.nan_to_num(values[places], nan=np.inf), kind="stable")
    for place in places[order][:MOST].tolist():
        step, level, value = int(steps[place]), float(usual[place]), float(values[place])
        following = (
            f"{format.decimal(float(values[place + 1]))} in the next" if place + 1 < len(values) else "nothing after"
        )
        if np.isfinite(value):
            times = (value - level) / max(noise[place], 1e-12)
            told = (
                f"the loss was {format.decimal(value)} in step {step:,}, {times:.0f} "
                f"times the noise above {format.decimal(level)}, and {following}"
            )
        else:
            told = f"the loss was not finite in step {step:,} alone: {format.decimal(level)} before, and {following}"
        if norms is not None and means is not None and len(at := np.flatnonzero(norms.steps == step)):
            there = float(means[at[0]])
            if middle > 0 and there > 2 * middle:
                told += f"; the gradient norm was {there / middle:.0f} times its usual size"
        yield Evidence("train/loss", (step, step), value if np.isfinite(value) else None, level, told)


def _samples(case: Case, steps: set[int]) -> str:
    """What alerts of those steps say of their data."""
    for alert in case.history.alerts:
        if alert.details.get("step") in steps and alert.details.get("samples"):
            named = ", ".join(str(one) for one in list(alert.details["samples"])[:8])
            return printable(f"an alert names the samples of step {alert.details['step']:,}: {named}", limit=200)
    return ""
