"""accumulation-not-normalised: the loss is summed over micro-batches and not divided.

Looks for: a training loss that is a whole number of times the validation loss, two or more, from the first evaluation
    on, while both fall; where nothing was evaluated, a first loss that is a whole number of times what guessing costs,
    and the whole curve above it. What is known of the accumulation must agree.
Why it matters: the gradient is as many times too large as well, and with it each update of plain gradient descent, each
    comparison with the threshold of clipping, and each comparison of runs of different accumulation.
Evidence: the ratio at the evaluations, how little it scatters, the first loss beside ln V, the accumulation that was
    set.
Remedy: divide each micro-batch's loss by their number, or better the sum over all of them by all tokens.
False alarms: dropout, smoothing and penalties lift the training loss by a part of it, or by a constant: a ratio that
    begins at one, or is no whole number, or below 1.9, is not taken. Mixed samples and strong augmentation can make it
    two or three: that is a remark, unless training samples are answered as well as those of validation, which mixed
    ones are not. Losses that do not fall say nothing of a ratio, and of an objective of several terms nothing is said.
Source: own; the division by tokens after the mistake that was found in many trainers in October 2024
    (huggingface/transformers issue 34198 among them).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy, Withheld
from trimtab.doctor.reading.curves import Curve, Floats, Steps
from trimtab.doctor.reading.levels import uniform_loss
from trimtab.doctor.reading.medians import median
from trimtab.runs import format

LEAST: Final = 1.9
WHOLE: Final = 0.12
"""Of the ratio, that it may be away from a whole number: a quarter of 2, and of 8 whichever is next."""
SCATTER: Final = 0.25
FALLS: Final = 0.1
"""Of the validation loss at first, that it must fall by, so that a ratio is no difference."""
FEWEST: Final = 4
FEWEST_ROWS: Final = 12
SPARSE: Final = 60
"""Values, of which each is the mean of a stretch as a rule: between fewer it is read off as it is."""
STEEP: Final = 0.8
"""Of the multiple: as many times as steeply as the validation loss must the training loss fall."""
APART: Final = 0.1
"""Of the validation loss: evaluations that differ by less say nothing of how steeply."""
MIXED: Final = 3
"""Times: samples that are mixed or augmented strongly make a training loss as high."""
AS_GOOD: Final = 0.05
"""Of the accuracy, that answers to training samples may be worse by."""


def check(case: Case) -> Iterator[Finding | Withheld]:
    """A warning."""
    loss, validation = Curve.of(case.loss()), Curve.of(case.validation_loss())
    if loss is None or len(loss) < FEWEST_ROWS or any(name.startswith("train/loss/") for name in case.history.series):
        return  # of several terms the sum is no multiple of one
    uniform, accumulation = uniform_loss(case), _accumulation(case)
    if validation is None and uniform is None:
        yield Withheld("accumulation-not-normalised", ("validation/loss",))
        return
    evidence: list[Evidence] = []
    times = _beside_validation(loss, validation, evidence, accumulation) if validation is not None else None
    alike = times is not None and _is_as_good(case, evidence)
    if times is None and (validation is not None or uniform is None):
        return
    first = float(loss.values[0]) / uniform if uniform is not None and loss.first_step <= 2 else None
    if first is not None and uniform is not None:
        agrees = abs(first / max(round(first), 1) - 1) < 0.08 and round(first) >= 2
        if times is not None and abs(first / times - 1) > WHOLE:
            return  # the training loss begins where it should: something else is between the two
        if times is None:
            if not agrees or accumulation != round(first) or loss.end < uniform:
                return
            times = round(first)
        text = f"the first loss is {format.decimal(float(loss.values[0]))}, {first:.2f} times what guessing costs"
        evidence.append(Evidence("train/loss", (loss.first_step, loss.first_step), first, 1.0, text))
    if times is None or (accumulation is not None and accumulation != times):
        return
    if accumulation is not None:
        text = f"each update is made of {accumulation} micro-batches"
        evidence.append(Evidence("training.accumulation", (0, 0), accumulation, None, text))
    known = accumulation is not None or first is not None or alike
    may_be_mixed = not known and times <= MIXED
    yield Finding(
        "accumulation-not-normalised",
        "info" if may_be_mixed else "warning",
        0.95 if accumulation is not None else 0.5 if may_be_mixed else 0.85,
        loss.first_step,
        f"the training loss is {times} times the validation loss: it is summed over {times} micro-batches and not "
        "divided, and so is the gradient, or training samples are made much harder (mixed, or augmented strongly)"
        if may_be_mixed
        else f"the training loss is {times} times what it should be: it is summed over {times} micro-batches and not "
        "divided, and so is the gradient",
        tuple(evidence),
        remedies=(
            Remedy(
                "divide by the counted tokens of all micro-batches of an update, or each micro-batch's loss by their "
                "number; lower the rate and the threshold of clipping no further"
            ),
        ),
    )


def _accumulation(case: Case) -> int | None:
    value = case.setting("training.accumulation")
    return value if isinstance(value, int) and value > 1 else None


def _beside_validation(
    loss: Curve, validation: Curve, evidence: list[Evidence], accumulation: int | None
) -> int | None:
    """The whole number that the training loss is of the validation loss at each evaluation."""
    inside = (validation.steps > loss.first_step) & (validation.steps <= loss.last_step) & (validation.values > 0)
    steps, judged = validation.steps[inside], validation.values[inside]
    if len(steps) < FEWEST or float(judged.max() - judged.min()) < FALLS * float(judged.max()):
        return None
    here = _beside(loss, steps, judged)
    ratios = here / judged
    early = ratios[: max(FEWEST, (len(ratios) + 1) // 2)]  # later a model may overfit, and the ratio with it
    usual = median(early)
    times = accumulation or round(usual)
    if usual < LEAST or abs(usual / times - 1) > WHOLE:
        return None
    if float(np.quantile(np.abs(early / usual - 1), 0.75)) > SCATTER or float(early[0]) < LEAST:
        return None
    # A constant between the two lifts the training loss as much at every level of the other.
    slopes = _slopes(judged[: len(early) + 1], here) or _slopes(judged, here)
    if not slopes or median(np.array(slopes)) < 1 + STEEP * (times - 1):
        return None
    ratios = early
    text = (
        f"the training loss is {usual:.2f} times the validation loss as a median of {len(ratios)} evaluations, and "
        f"from {ratios.min():.2f} to {ratios.max():.2f} times in all, while the latter fell from "
        f"{format.decimal(float(judged.max()))} to {format.decimal(float(judged.min()))}"
    )
    evidence.append(Evidence("validation/loss", (int(steps[0]), int(steps[-1])), usual, 1.0, text))
    return times


def _slopes(judged: Floats, here: Floats) -> list[float]:
    """How many times as much the training loss differs, between any two evaluations that lie apart."""
    pairs = itertools.combinations(zip(judged, here, strict=False), 2)
    return [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs if abs(b[0] - a[0]) > APART * a[0]]


def _beside(loss: Curve, steps: Steps, judged: Floats) -> Floats:
    """The training loss at the evaluations. A row of few is as a rule the mean since the one before, and belongs half
    as many steps earlier: it is read so where the ratio is steadier for it."""
    if len(loss) >= SPARSE:
        return loss.along(steps)
    half = median(np.diff(loss.steps)) / 2
    read = [np.interp(steps, loss.steps - back, loss.values) for back in (0.0, half)]
    return min(read, key=lambda here: float(np.std((here / judged)[: max(FEWEST, (len(judged) + 1) // 2)])))


def _is_as_good(case: Case, evidence: list[Evidence]) -> bool:
    """Whether training samples are answered as well as those of validation: then they are not the harder ones."""
    training, judged = (Curve.of(case.evaluated(f"{of}/accuracy")) for of in ("train", "validation"))
    if training is None or judged is None or len(judged) < FEWEST or len(training) < FEWEST_ROWS:
        return False
    beside = np.interp(judged.steps, training.steps, training.values if len(training) < SPARSE else training.smoothed)
    less = median(judged.values - beside)
    if less > AS_GOOD:
        return False
    text = f"training samples are answered as well as those of validation ({format.decimal(-less)} better)"
    evidence.append(Evidence("train/accuracy", (judged.first_step, judged.last_step), -less, 0.0, text))
    return True
