"""corrupt-batch: a spike that is traced to one batch, or to a few in a row.

Looks for: a training loss that is far too high, or not finite, in a single step, and where it was before in the next.
    The loss of a step is that of its batch before the update: weights that an update has damaged take steps to mend,
    so what is back at once was the batch. It must stand out by eight times the noise there, by three tenths of all
    that was gained, and by twice what batches reach elsewhere; up to five such batches. The alerts of a run of ours
    name its samples. Or two to eight steps in a row, whose losses are what answers to nonsense cost, a guess or more:
    so high from the first or the second on, back at once after the last, and gradients with them; the first and the
    last may be damaged in part. Of a jump that weights made each step would take back a part.
Why it matters: such a batch moves the weights by nonsense, however sound all else is; in every epoch it comes again.
Evidence: the losses of the step and of its neighbours, the gradient norm there, the samples, and whether it comes
    again at the distance of an epoch.
Remedy: look at those samples, and leave them out; skip updates far from others (`gradients.skip`), which costs one
    step.
False alarms: data of mixed difficulty, whose hard batches reach as far again and again; with fp16, a loss scale that
    is being found. At the top of a warm-up, where gradients grew in the steps before, and where neither the loss nor
    the gradient is back in the next step, the weights may have done it: then it is told only if it comes again or is
    traced. Several in a row stay a loss-spike where gradients or the rate rose before, or gradients are not logged;
    and so do losses that are means over several steps, which show no single one.
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
from trimtab.doctor.reading.medians import median
from trimtab.doctor.reading.outliers import CLEAR, NOISES, farthest, lone_bad, outliers_of
from trimtab.doctor.reading.torn import Torn, torn_in
from trimtab.doctor.reading.unsteady_steps import lasting_places, unsteady_places
from trimtab.runs import format
from trimtab.runs.history import Series
from trimtab.runs.printable import printable

CODE: Final = "corrupt-batch"
GRAVE: Final = 0.5
"""Of all that was gained: from there on it is a warning, whatever else is known of it."""
FAR: Final = 18.0
"""Times the noise: the same, of errors that are squared or of an unknown kind."""
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
    if every == 1 and (torn := torn_in(case, series)):
        yield _in_a_row(case, series, torn)
        return
    witness = _witness(case, series)
    high, usual, noise = outliers_of(series, EASED if witness else 1.0)
    bad = lone_bad(values)
    places = np.flatnonzero(high | bad)
    again = _period(case, places)
    if not len(places) or (len(places) > MOST and again is None):
        return
    if again is None and not _samples(case, set(steps[places].tolist())):
        # Nothing traces it to its batch: where weights are unsteady, they may have done it.
        for doubtful in (unsteady_places(case, series.steps, places), lasting_places(case, series, places, usual)):
            left_out = set(doubtful.tolist())
            places = np.array([place for place in places.tolist() if place not in left_out], np.int64)
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
    yield Finding(
        CODE,
        "warning" if grave else "info",
        0.9 if again is not None or samples else 0.8 if grave else 0.6,
        onset,
        (
            f"the batch of step {onset:,} is damaged or of another kind: the loss jumped in that step"
            if every == 1
            else f"a batch about step {onset:,} is damaged or of another kind: the loss jumped in one logged value"
        )
        + " alone"
        + (f", and in {format.count(len(places) - 1)} more" if len(places) > 1 else ""),
        tuple(evidence),
        remedies=_remedies(case, f"step {onset:,}"),
    )


def _in_a_row(case: Case, series: Series, torn: list[Torn]) -> Finding:
    """A warning of batches that are damaged one after the other."""
    evidence = []
    for one in sorted(torn, key=lambda one: -one.height)[:MOST]:
        steps, value = (int(series.steps[one.first]), int(series.steps[one.last])), float(series.mean[one.top])
        told = (
            f"the loss of the batches {_where(one, series)} was {format.decimal(value)} at most, amid "
            f"{format.decimal(value - one.height)}, and {format.decimal(float(series.mean[one.last + 1]))} in the "
            "next; gradients stood out in them, and no longer"
        )
        evidence.append(Evidence("train/loss", steps, value, value - one.height, told))
    samples = _samples(case, {int(series.steps[at]) for one in torn for at in range(one.first, one.last + 1)})
    if samples:
        evidence.append(Evidence("alerts", evidence[0].steps, None, None, samples))
    onset = int(series.steps[torn[0].first])
    where = " and ".join(_where(one, series) for one in torn[:MOST])
    return Finding(
        CODE,
        "warning",
        0.9 if samples else 0.8,
        onset,
        f"the batches {where} are damaged or of another kind: the loss jumped to what nonsense costs in them alone",
        tuple(evidence),
        remedies=_remedies(case, where.removeprefix("of ")),
    )


def _where(one: Torn, series: Series) -> str:
    first, last = int(series.steps[one.first]), int(series.steps[one.last])
    return f"of step {first:,}" if first == last else f"of steps {first:,} to {last:,}"


def _remedies(case: Case, where: str) -> tuple[Remedy, ...]:
    skips = case.target == "trimtab" and case.setting("gradients.skip.name") == "none"
    return (
        Remedy(f"look at the samples of {where}, and leave out those that are damaged"),
        *([Remedy("skip updates far from others", "trimtab", {"gradients.skip.name": "spike"})] if skips else []),
    )


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
    if len(curve) == len(series):
        at = farthest(curve, begin) - begin
    else:
        loss = (series.mean - running_median(series.mean, 15))[begin:]
        if not np.isfinite(loss).any():
            return False
        at = int(np.nanargmax(loss))
    near = values[begin + at - 7 : begin + at + 8]
    if len(near) == 15 and values[begin + at] / max(median(near), 1e-12) <= ALONE:
        return False  # as nearly always, without the others
    late = (values / np.maximum(running_median(values, 15), 1e-12))[begin:]
    return bool(late[at] > ALONE and late[at] > CLEAR * np.delete(late, at).max())


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
