"""outlier-dominated-loss: a few samples make most of the loss.

Looks for: under a squared error, targets whose farthest hundredth makes three quarters of all squares (the fact
    `outliers.share`; of a normal distribution it makes 0.085), or its farthest twentieth nearly all, or samples of a
    step whose highest loss is far above all others again and again (`probe/sample_loss`). In logs: a loss that is low
    in most steps and so high in few, here and there, that those few make most of the sum, and it is back in the next
    step each time; or it is many times the validation loss, and another in each step; or the validation loss stands at
    the mean of a training loss that few steps make alone. Never of a log with an accuracy.
Why it matters: the gradient is that of those few samples. The model learns them, or nothing, and the rest stays as it
    was.
Evidence: the share of the farthest hundredth, quantiles of the samples' losses, or the share of the highest steps.
Remedy: a loss that grows less than quadratically (`objective.name: huber` or `mae`), the logarithm of targets that
    span orders of magnitude, or a look at whether the outliers are right; clipping bounds what one step can do.
False alarms: rare large targets that matter most (claims, floods): there the squared error may be what is wanted. A
    few batches alone are corrupt-batch.
Source: Huber 1964, "Robust Estimation of a Location Parameter".
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.curves import Curve, running_median
from trimtab.doctor.reading.medians import median
from trimtab.runs import format

CODE: Final = "outlier-dominated-loss"
MOST_OF_ALL: Final = 0.75
"""Of squares, or losses: less than that is the tail of what grows by factors, and said as a remark from a half on."""
HALF: Final = 0.5
NEARLY_ALL: Final = 0.92
"""The same of the farthest twentieth."""
SQUARED: Final = ("mse", "rmse", "cross_entropy", None)
"""Objectives under which a far target counts by its square; a run of regression that names none has mse."""
TENTH: Final = 0.3
"""Of the summed loss, in each quarter: what the highest tenth of the steps makes of it at least, where batches hold
a far target as often as not."""
LOW: Final = 0.03
"""Of their mean: a quarter of the steps is lower."""
FAR_ABOVE: Final = 5.0
"""Times the validation loss, whose targets are not among the far ones."""
UNEVEN: Final = 0.6
"""Of its mean: the deviation of such a training loss from step to step."""
IN_NO_ORDER: Final = 0.3
"""Correlation of a step with the next."""
THROWN: Final = 10.0
"""Times the highest later loss."""
TIMES: Final = 40.0
MET: Final = 0.01
"""Of the steps, that far targets make high at most where they lie together: a few batches alone."""
LIKE_MEAN: Final = 3.0
"""Times the validation loss, and as small a part of it: a mean of few steps."""
STANDS: Final = 0.1
"""Of itself, by which a validation loss moves that far targets make."""
FEWEST: Final = 20
FEWEST_STEPS: Final = 100
FEW_UNEVEN: Final = 1.6
"""Times the median of few rows, as their mean."""


def check(case: Case) -> Iterator[Finding]:
    """A warning."""
    task, objective = case.fact("task"), case.setting("objective.name")
    if task not in (None, "regression") or (task == "regression" and objective not in SQUARED):
        return
    evidence = [*_targets(case), *_samples(case)]
    known = bool(evidence)
    heavy = case.fact("outliers") is None or _is_heavy(case)
    if not known and case.fact("outliers") is not None:
        return
    evidence += _steps(case)
    training = Curve.of(case.loss())
    if not evidence or training is None or _met_together(training):
        return
    config = {"objective.name": "huber"} if case.target == "trimtab" and task == "regression" else {}
    yield Finding(
        CODE,
        "warning" if heavy else "info",
        0.9 if known and heavy else 0.65,
        training.first_step,
        "a few samples far from all others make most of the loss, and of the gradient",
        tuple(evidence),
        remedies=(
            Remedy("take a loss that one sample cannot rule", case.target if config else "text", config),
            Remedy("look at whether those samples are right, or learn the logarithm of what spans orders of magnitude"),
        ),
    )


def _met_together(training: Curve) -> bool:
    """Whether a step or two of all hold what is far: such rows lie together, and are no kind of sample."""
    late = training.values[len(training) // 5 :]  # from where the early descent is over
    met = int((late > TIMES * max(median(late), 0.0)).sum())
    return len(training) >= FEWEST_STEPS and 1 <= met <= max(2.0, MET * len(training))


def _is_heavy(case: Case) -> bool:
    """Whether few targets make nearly all squares: a hundredth, or a twentieth where they are more."""
    share, twentieth = case.number("outliers", "share") or 0.0, case.number("outliers", "twentieth") or 0.0
    return share > MOST_OF_ALL or twentieth > NEARLY_ALL


def _targets(case: Case) -> Iterator[Evidence]:
    share, farthest = case.number("outliers", "share"), case.number("outliers", "farthest")
    if share is not None and farthest is not None and share <= HALF and _is_heavy(case):
        part = case.number("outliers", "twentieth") or 0.0
        told = f"the farthest twentieth of the targets makes {part:.0%} of all squared distances"
        yield Evidence("facts.outliers", (0, 0), part, 0.28, told)
    elif share is not None and farthest is not None and share > HALF:
        told = (
            f"the farthest hundredth of the targets makes {share:.0%} of all squared distances; one is "
            f"{farthest:.0f} times as far as the median one"
        )
        yield Evidence("facts.outliers", (0, 0), share, 0.085, told)


def _samples(case: Case) -> Iterator[Evidence]:
    highest = Curve.of(case.history.get("probe/sample_loss/maximum"))
    usual = Curve.of(case.history.get("probe/sample_loss/p75"))
    if case.fact("task") != "regression" or highest is None or usual is None or len(highest) != len(usual):
        return
    ratio = highest.values / np.maximum(usual.values, 1e-9)
    if len(ratio) >= 2 and median(ratio) > TIMES:
        times = median(ratio)
        told = f"the highest loss of a step's samples is {times:.0f} times that of which three quarters stay below"
        steps = (highest.first_step, highest.last_step)
        yield Evidence("probe/sample_loss/maximum", steps, median(ratio), TIMES, told)


def _steps(case: Case) -> Iterator[Evidence]:
    series = case.loss()
    assert series is not None
    steps, values = series.finite()
    if len(values) < FEWEST or series.width > 1 or float(values.min()) < 0.0:
        return
    if case.history.has("train/accuracy") or case.history.has("validation/accuracy"):
        return  # classes have no outliers; what is learned by heart leaves a few hard batches
    # From where the early descent is over.
    begin = len(values) // 5
    late = values[begin:]
    if float(values[:begin].max()) > THROWN * float(late.max()):
        return  # the first updates threw the loss far higher than any sample makes it
    validation = Curve.of(case.validation_loss())
    # Of few rows a sum that scatters is as uneven.
    is_uneven = len(values) >= FEWEST_STEPS // 2 or float(late.mean()) >= FEW_UNEVEN * median(late)
    if validation is not None and is_uneven and _is_far_above(late, validation.end):
        told = (
            f"from step {int(steps[begin]):,} on the training loss is {format.decimal(float(late.mean()))} on average, "
            f"and its steps deviate by {format.decimal(float(late.std()))}, while the validation loss is "
            f"{format.decimal(validation.end)}"
        )
        yield Evidence("train/loss", (int(steps[begin]), int(steps[-1])), float(late.mean()), validation.end, told)
        return
    if validation is not None and _is_mean_of_few(late, validation):
        told = (
            f"from step {int(steps[begin]):,} on the median step has {format.decimal(median(late))}, and the "
            f"mean is {format.decimal(float(late.mean()))}, as is the validation loss, {format.decimal(validation.end)}"
        )
        yield Evidence("train/loss", (int(steps[begin]), int(steps[-1])), float(late.mean()), validation.end, told)
        return
    if len(values) < FEWEST_STEPS // 2:
        return
    if _is_heavy_tailed(late):
        top = float(np.sort(late)[-(len(late) // 10) :].sum() / late.sum())
        told = (
            f"from step {int(steps[begin]):,} on the highest tenth of the steps makes {top:.0%} of the summed loss, in "
            f"no order; a quarter of the steps has less than {format.decimal(float(np.quantile(late, 0.25)))}, and the "
            f"mean is {format.decimal(float(late.mean()))}"
        )
        yield Evidence("train/loss", (int(steps[begin]), int(steps[-1])), top, TENTH, told)
        return
    if len(values) < FEWEST_STEPS:
        return
    excess = late - running_median(late, 31)
    high = excess > 6.0 * median(np.abs(excess)) * 1.4826 + 2.0 * np.maximum(running_median(late, 31), 0.0)
    inside = np.insert(high[:-1], 0, False) & high & np.append(high[1:], False)
    high &= ~(
        inside | np.insert(inside[:-1], 0, False) | np.append(inside[1:], False)
    )  # a spike that lasts is no sample
    places = np.flatnonzero(high)
    apart = int((np.diff(places) > 1).sum()) + 1 if len(places) else 0
    share = float(late[high].sum() / late.sum()) if late.sum() > 0 else 0.0
    if share < HALF or apart < 6 or len(places) > 0.2 * len(late) or apart < 0.6 * len(places):
        return
    parts = [excess[high & (np.arange(len(late)) * 4 // len(late) == part)] for part in range(4)]
    heights = [median(part) for part in parts if len(part)]
    # Of a loss that goes to zero the last hard batches stand out, too, and ever less.
    if len(heights) < 3 or heights[-1] < 0.2 * heights[0]:
        return
    middle, highest = (format.decimal(float(value)) for value in (median(late), late.max()))
    told = (
        f"from step {int(steps[begin]):,} on {len(places)} of {len(late)} steps make {share:.0%} of the summed loss; "
        f"the median step has {middle}, and the highest {highest}"
    )
    yield Evidence("train/loss", (int(steps[begin]), int(steps[-1])), share, HALF, told)


def _is_heavy_tailed(late: NDArray[np.float64]) -> bool:
    """Whether in each quarter a tenth of the steps makes far more than a low one, and no step tells of the next."""
    for part in np.array_split(late, 4):
        top, mean = np.sort(part)[-math.ceil(len(part) / 10) :], float(part.mean())
        few = float(top.sum()) >= TENTH * float(part.sum())
        if mean <= 0.0 or not few or float(np.quantile(part, 0.25)) > LOW * mean:
            return False
    return _in_no_order(late)


def _is_far_above(late: NDArray[np.float64], judged: float) -> bool:
    """Whether the training loss lies at many times the validation loss in each quarter, and another in each step."""
    mean, deviation = min(float(part.mean()) for part in np.array_split(late, 4)), float(late.std())
    return judged > 0.0 and mean > FAR_ABOVE * judged and deviation > UNEVEN * float(late.mean()) and _in_no_order(late)


def _is_mean_of_few(late: NDArray[np.float64], validation: Curve) -> bool:
    """Whether the validation loss stands at the mean of the training loss, which a few single steps make alone."""
    mean, middle = float(late.mean()), median(late)
    high = late > mean
    stands = float(np.ptp(validation.values)) < STANDS * validation.median
    like = 1.0 / LIKE_MEAN < mean / max(validation.median, 1e-12) < LIKE_MEAN
    return middle < mean / TIMES and stands and like and int(high.sum()) >= 3 and not (high[1:] & high[:-1]).any()


def _in_no_order(late: NDArray[np.float64]) -> bool:
    return float(late.std()) > 0.0 and abs(float(np.corrcoef(late[:-1], late[1:])[0, 1])) < IN_NO_ORDER
