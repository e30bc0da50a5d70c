"""plateau: the training loss stands still, and nothing else explains it.

Looks for: a run of a hundred steps or more in which the level of the loss never falls by more than its noise, though
    the rate is not 0, and the validation loss falls no more than that either; or evaluations that agree to the last
    digit for a fifth of the run, or hardly differ for most of it at the full rate, so that no weight changes any more;
    or a gradient that is exactly 0 for the last fifth of the run and longer. In a log of another trainer: losses of
    many classes that fell a little at first and both stand, at a high rate, from the first third on and near where they
    began; a remark, unless so few answers are right that a model that knows no more than frequencies costs as much.
Why it matters: such a run learns nothing, however quietly; the usual reason is a mistake in the code or the data.
Evidence: the level at the start and at the end, beside the noise.
Remedy: try to learn one batch by heart; check that the loss depends on the model, and labels on their inputs.
False alarms: a model that goes on from where it had learned all that it can: of a log that begins in the middle it is
    a remark. Fine-tuning looks as if it stood near its start: how many answers are right tells it apart. A fall within
    the first few steps counts; where noise hides a fall of a sixteenth of the loss it is a remark, and where too few
    digits were kept nothing.
Source: own; the test by one batch is Karpathy 2019, "A Recipe for Training Neural Networks".
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.curves import Curve, Phases, resolution
from trimtab.doctor.reading.evaluations import no_gradient_since, noise_of_evaluations, unchanged_since
from trimtab.doctor.reading.levels import could_be_frequencies
from trimtab.doctor.reading.medians import median
from trimtab.doctor.reading.trends import parts_of
from trimtab.runs import format

FEWEST_STEPS = 100
STILL = 0.005
"""Of the level, and of what had been gained: evaluations that differ by less hardly differ."""
STILL_OF_LITTLE, STILL_OF_GAINED = 0.012, 0.002
"""The same where little of the loss is left: what has learned so much wavers by more of it at the full rate."""
FELL = (0.055, 0.25)
"""Of the first loss: what the frequencies of the answers alone take from it. Less is no fall, and more was learned."""
MOST_OF_WORDS = 0.14
"""The same where there are a dozen classes or more; more than that is what a small model comes to."""
OF_CLASSES, OF_WORDS = 1.35, 2.5
"""A first loss above that is of four classes or more, or of a dozen: no noise of numbers stands as high."""
STANDS = 0.009
"""Of the first loss: evaluations that differ by less in the last two thirds stand."""
BESIDE = 0.022
"""Of the first loss: how far both losses may lie apart."""
BLURRED = 0.06
"""Of the loss: where noise hides a fall of so much it is a remark."""


def check(case: Case) -> Iterator[Finding]:
    """A warning when the loss is where it began, within its noise, or evaluations repeat each other."""
    if (since := unchanged_since(case)) is not None:
        yield _unchanged(case, since)
        return
    curve, rates = Curve.of(case.loss()), Curve.of(case.history.get("learning_rate"))
    if curve is not None and (cut := no_gradient_since(case, curve)) is not None:
        yield _cut_off(case, curve, cut)
        return
    if curve is not None and rates is not None and (still := _still_at_full_rate(case, curve, rates)) is not None:
        yield still
        return
    if curve is not None and (stands := _stands_near_start(case, curve)) is not None:
        yield stands
        return
    if curve is None or len(curve) < 24 or curve.last_step - curve.first_step + 1 < FEWEST_STEPS:
        return
    if case.history.last_step < 0.5 * case.planned_steps or (rates is not None and float(rates.values.max()) <= 0):
        return
    size = len(curve) // 8
    first, last = median(curve.values[len(curve) - 8 * size :][:size]), median(curve.values[-size:])
    if abs(first - last) > max(4.5 * curve.error(size), 1e-6 * abs(first)):
        return  # as most often, by two of the eight parts alone
    _, levels, size = curve.blocks(8)
    fell = float(levels[0] - levels.min())
    error = max(4.5 * curve.error(size), 1e-6 * abs(float(levels[0])))
    if fell > error or float(levels[-1] - levels[0]) > error or _learns(case) or _fell_at_once(curve):
        return
    if resolution(curve.values) > 0.05 * abs(median(levels)):
        return  # too few digits were kept to tell
    knows = not curve.from_start or could_be_frequencies(case, float(levels[0]), float(levels[-1])) is False
    blurred = knows or error > BLURRED * abs(median(levels))
    yield Finding(
        "plateau",
        "info" if blurred else "warning",
        0.5 if blurred else 0.8,
        curve.first_step,
        f"the loss stays near {format.decimal(median(levels))} all along, but for the noise of single steps "
        f"({format.decimal(curve.noise)}): nothing is learned",
        (
            Evidence(
                "train/loss",
                (curve.first_step, curve.last_step),
                float(levels[-1]),
                float(levels[0]),
                f"the median loss of the first eighth is {format.decimal(float(levels[0]))} and that of the last "
                f"{format.decimal(float(levels[-1]))}; what it fell by in between is within its noise "
                f"({format.decimal(curve.noise)} a step)",
            ),
        ),
        remedies=(
            Remedy("try to learn a single batch by heart: if that fails, the fault is in the model or the loss"),
            Remedy("check that the labels belong to their inputs, and that the optimizer has the model's parameters"),
        ),
    )


def _cut_off(case: Case, curve: Curve, since: int) -> Finding:
    told = f"the norm of the whole gradient is exactly 0 from step {since:,} to {curve.last_step:,}"
    return Finding(
        "plateau",
        "warning",
        0.9,
        since,
        f"from step {since:,} on no gradient reaches any parameter: nothing is learned any more",
        (Evidence("grad_norm", (since, curve.last_step), 0.0, None, told),),
        remedies=(Remedy("look for what cuts the loss off from the weights: detach(), a constant, gradients zeroed"),),
    )


def _still_at_full_rate(case: Case, curve: Curve, rates: Curve) -> Finding | None:
    """Evaluations that hardly differ for the rest of the run, at the full rate and far from nothing: weights that are
    still updated move more than that."""
    validation = Curve.of(case.validation_loss())
    if validation is None or len(validation) < 8 or case.history.last_step < 0.8 * case.planned_steps:
        return None
    begin = curve.first_step + 0.4 * (curve.last_step - curve.first_step)
    part, full = validation.between(begin, validation.last_step), rates.between(begin, rates.last_step)
    if part is None or full is None or len(part) < 5 or float(full.values.min()) < 0.9 * float(rates.values.max()) > 0:
        return None
    level, start = median(part.values), max(curve.start, float(validation.values[0]))
    spread = float(part.values.max() - part.values.min())
    gained = max(start - level, 0.0)
    if not (level >= 0.3 * start and spread <= STILL * min(level, gained)) and spread > min(
        STILL_OF_LITTLE * level, STILL_OF_GAINED * gained
    ):
        return None
    if spread <= 2.0 * resolution(validation.values):
        return None  # too few digits were kept to tell
    if level < 0.3 * start and parts_of(part, len(part)).steadiness < -0.5:
        return None  # they still fall, one after the other: little is left to learn
    usual = median(curve.values[len(curve) // 2 :])
    since = int(curve.steps[int(np.flatnonzero(curve.smoothed <= usual + curve.error(curve.width))[0])])
    told = (
        f"{len(part)} evaluations from step {part.first_step:,} on lie between {part.values.min():.5g} and "
        f"{part.values.max():.5g}, at the full rate"
    )
    return Finding(
        "plateau",
        "warning",
        0.75,
        since,
        f"from step {since:,} on nothing is learned any more at the full rate: evaluations hardly differ",
        (Evidence("validation/loss", (part.first_step, part.last_step), spread, STILL * level, told),),
        remedies=(
            Remedy("check that the optimizer has the model's own parameters, and that its step is called"),
            Remedy("try to learn a single batch by heart: if that fails, the fault is in the model or the loss"),
        ),
    )


def _stands_near_start(case: Case, curve: Curve) -> Finding | None:
    """Both losses, of many classes, stand together from the first third on, little below where they began.

    A model that was trained before does the same. Only where the first loss is that of a guess is nothing learned but
    how frequent the answers are, and then the answers cost no more than their accuracy allows: one that is right more
    often than that began with knowledge.
    """
    validation = Curve.of(case.validation_loss())
    if case.target == "trimtab" or case.config or validation is None or len(validation) < 5:
        return None
    if case.history.last_step < 0.8 * case.planned_steps or not curve.from_start:
        return None
    start, last = max(curve.start, float(validation.values[0])), float(validation.values[-1])
    third = validation.first_step + (validation.last_step - validation.first_step) / 3
    phases = Phases.of(case.history.get("learning_rate"), curve.first_step, curve.last_step)
    highest = max(float(curve.values.max()), float(validation.values.max()))
    if start < OF_CLASSES or phases.high_until < third or highest > 1.3 * start:
        return None
    fell = 1.0 - last / start
    if (
        not FELL[0] < fell < (MOST_OF_WORDS if start > OF_WORDS else FELL[1])
        or curve.start - curve.end < FELL[0] * start
    ):
        return None
    gained = float(np.interp(third, validation.steps, validation.values)) - last
    half = validation.values[len(validation) // 2 :]
    if max(abs(gained), float(half.max() - half.min())) > STANDS * start or abs(last - curve.end) > BESIDE * start:
        return None
    told_by_answers = could_be_frequencies(case, start, last)
    if told_by_answers is False:
        return None
    told = (
        f"the validation loss {'fell' if gained >= 0 else 'rose'} by {format.decimal(abs(gained))} from step "
        f"{round(third):,} on, and stands at {format.decimal(last)}, {last / start:.0%} of the first loss"
    )
    return Finding(
        "plateau",
        "warning" if told_by_answers else "info",
        0.65 if told_by_answers else 0.5,
        curve.first_step,
        f"both losses stand still at {last / start:.0%} of where they began, at a rate that could move them: "
        + (
            "hardly more is learned than how frequent the answers are"
            if told_by_answers
            else "in fine-tuning that may be all; of new weights it is hardly more than how frequent the answers are"
        ),
        (Evidence("validation/loss", (round(third), validation.last_step), gained, STANDS * start, told),),
        remedies=(
            Remedy("check that the model sees what the answers depend on: positions, the whole context, its inputs"),
            Remedy("try to learn a single batch by heart: if that fails, the fault is in the model or the loss"),
        ),
    )


def _learns(case: Case) -> bool:
    """Whether evaluations, which scatter less than single steps, fall all the same."""
    validation = Curve.of(case.validation_loss())
    if validation is None or len(validation) < 5:
        return False
    noise = noise_of_evaluations(validation.values)
    fell = float(median(validation.values[:2]) - median(validation.values[-3:]))
    return fell > max(4.0 * noise, STILL * abs(float(validation.values[0])))


def _fell_at_once(curve: Curve) -> bool:
    """Whether the first few values lie above the rest by more than chance: it fell within the first eighth."""
    rest = median(curve.values[len(curve) // 4 :])
    most = max(2, len(curve) // 16)
    means = np.cumsum(curve.values[:most]) / np.arange(1, most + 1)
    return bool((means - rest > 4.0 * curve.noise / np.sqrt(np.arange(1, most + 1)) + 0.01 * abs(rest)).any())


def _unchanged(case: Case, since: int) -> Finding:
    validation = Curve.of(case.validation_loss())
    assert validation is not None
    num = int((validation.steps >= since).sum())
    told = (
        f"{num} evaluations from step {since:,} to {validation.last_step:,} give {validation.values[-1]:.6g}, to the "
        "last digit"
    )
    return Finding(
        "plateau",
        "warning",
        0.9,
        since,
        f"no weight changes any more from step {since:,} on: evaluations repeat each other to the last digit",
        (Evidence("validation/loss", (since, validation.last_step), float(validation.values[-1]), None, told),),
        remedies=(
            Remedy("check that the optimizer has the model's own parameters, and that its step is called"),
            Remedy("check that evaluations are made of the weights that are trained, and not of a copy"),
        ),
    )
