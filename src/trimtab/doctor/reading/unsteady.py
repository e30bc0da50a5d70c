"""Signs in the curves alone that updates are too large, each with its weight; each may have another reason."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence
from trimtab.doctor.reading.curves import ERROR_OF_MEDIAN, Curve, Floats, Phases
from trimtab.doctor.reading.medians import median
from trimtab.doctor.reading.once import once
from trimtab.doctor.reading.restarts import rises_again
from trimtab.doctor.remedies import uses_adam
from trimtab.runs import format

BOUNCE = 0.08
"""Of the usual validation loss, and of the loss at the start: an evaluation that is so much off the one before."""
WIDE, OFTEN = 0.15, 3
"""The same of one, and how many such rises, that no sound run makes at a high rate, though it calm down afterwards."""
UNSUSPECTED = 5e-3
"""Of another trainer's log: a rate below that is hardly what makes evaluations bounce."""
TOGETHER = 0.6
"""Correlation of a loss with the one before, and of evaluations with the training loss beside them."""
LOUDER = 1.4
"""Times what training losses differ by."""
Sign = tuple[float, Evidence]


@once
def in_waves(curve: Curve) -> bool:
    """Whether losses of neighbours belong together, around the line through the last four fifths of the run: what comes
    and goes over many steps is in the data; what a rate does differs from batch to batch."""
    part = curve.values[len(curve) // 5 :]
    if len(part) < 24:
        return False
    at = np.arange(len(part)) - 0.5 * (len(part) - 1)
    rest = part - part.mean()
    rest -= float(at @ rest) / float(at @ at) * at
    whole = float(np.square(rest).mean())
    return whole > 0 and float((rest[1:] * rest[:-1]).mean()) > TOGETHER * whole


def _is_adam_told(case: Case) -> bool:
    """Not only as a trainer's default, which may have been changed."""
    return (case.fact("optimizer") or case.setting("optimizer.name")) is not None and bool(uses_adam(case))


def bounces(case: Case, curve: Curve, phases: Phases) -> Iterator[Sign]:
    """Evaluations that go up and down by much to the end: the samples are the same, so that the weights do it.

    Where a decaying rate calms them by the end the rate was no higher than it should be, unless they had been thrown
    far up and down three times, at a rate that is known; and a rate that no small model suffers from has another reason
    for it, as have rises where the rate itself rises again. Where the training loss is far quieter, and does not go
    with them, they are made of too few samples.
    """
    validation = Curve.of(case.validation_loss())
    if validation is None or len(validation) < 8 or (0.0 < phases.peak < UNSUSPECTED and not _is_adam_told(case)):
        return
    changes, bound = np.diff(validation.values), max(BOUNCE * validation.median, BOUNCE * abs(curve.start))
    if int((changes > bound).sum()) < 2 or in_waves(curve) or curve.end > 1.5 * curve.start:
        return
    if _alone(curve, validation):
        return
    changes[(changes > 0) & rises_again(Curve.of(case.history.get("learning_rate")), validation.steps)] = 0.0
    much = np.abs(changes) > bound
    turns = np.flatnonzero(np.diff(np.sign(changes[much])) != 0)
    rises = int((changes[much] > 0).sum())
    calm = not much[-max(3, len(changes) // 4) :].any()
    if rises < 2 or len(turns) < 3 or (calm and not (phases.peak > 0.0 and _wide(changes, curve, validation))):
        return
    step = int(validation.steps[int(np.flatnonzero(much & (changes > 0))[0])])
    largest = float(changes.max())
    told = (
        f"the validation loss of the same samples goes up and down{'' if calm else ' to the end'}: {rises} times it "
        f"rose by much from one evaluation to the next, by {format.decimal(largest)} at most"
    )
    yield 3.0, Evidence("validation/loss", (step, validation.last_step), largest, BOUNCE * abs(curve.start), told)


def _wide(changes: Floats, curve: Curve, validation: Curve) -> bool:
    """Whether evaluations go up by far, and down again, three times and more."""
    far = changes[np.abs(changes) > WIDE * max(validation.median, abs(curve.start))]
    return int((far > 0).sum()) >= OFTEN and int((np.diff(np.sign(far)) != 0).sum()) >= 2 * OFTEN - 1


def _alone(curve: Curve, validation: Curve) -> bool:
    """Whether evaluations differ from one to the next by more than training losses do, and not together with them."""
    late = validation.steps >= curve.first_step + (curve.last_step - curve.first_step) / 3
    judged = np.diff(validation.values[late])
    trained = np.diff(np.interp(validation.steps[late], curve.steps, curve.values))
    if len(judged) < 6 or not trained.any():
        return False
    scatter = float(np.std(np.diff(curve.values[len(curve) // 3 :])))
    return float(np.std(judged)) > LOUDER * scatter and float(np.corrcoef(judged, trained)[0, 1]) < TOGETHER


def knocked_out(case: Case, curve: Curve) -> Iterator[Sign]:
    """A loss that the first updates throw up, and that then stands for the rest of the run: nothing learns any more."""
    cut = max(4, round(0.15 * len(curve)))
    early, rest = curve.values[:cut], curve.values[cut:]
    validation = Curve.of(case.validation_loss())
    if len(rest) < 24:
        return
    top, accuracy = int(np.argmax(early)), Curve.of(case.evaluated("validation/accuracy"))
    height = float(early[top])
    if accuracy is None and height <= 1.25 * float(early[0]):
        return  # as nearly always, without what follows
    level, third = median(rest), len(rest) // 3
    thrown = height > max(1.25 * float(early[0]), 1.3 * level) and level > 0.4 * abs(float(early[0]))
    ignorant = (
        height > 2.0 * level
        and accuracy is not None
        and len(accuracy) >= 5
        and median(accuracy.values[len(accuracy) // 2 :]) <= min(0.5, float(accuracy.values[0]) + 0.02)
    )
    if not (thrown or ignorant):
        return
    moved = abs(median(rest[:third]) - median(rest[-third:]))
    noise = Curve(curve.steps[cut:], rest).noise
    if moved > max(0.02 * abs(level), 4.0 * ERROR_OF_MEDIAN * noise / np.sqrt(third)) or noise > 0.2 * abs(level):
        return
    late = None if validation is None else validation.between(curve.steps[cut], curve.last_step)
    if late is not None and float(late.values[-1]) < 0.97 * float(late.values[0]):
        return
    if height - level < 10.0 * noise:
        return
    told = (
        f"the loss was {format.decimal(height)} at step {int(curve.steps[top]):,}, and stands near "
        f"{format.decimal(level)} from step {int(curve.steps[cut]):,} to the end: the first updates threw the "
        "weights to where nothing is learned"
    )
    yield (
        3.5 if ignorant else 3.0,
        Evidence("train/loss", (int(curve.steps[top]), curve.last_step), height, level, told),
    )


def hump(case: Case, curve: Curve, phases: Phases) -> Iterator[Sign]:
    """The loss falls, then rises for a while, in the first part of the run while the rate is high."""
    until = min(phases.high_until, curve.first_step + 0.5 * (curve.last_step - curve.first_step))
    part = curve.between(curve.first_step, until)
    if part is None or len(part) < 16:
        return
    steps, levels, size = part.blocks(16)
    lowest = np.minimum.accumulate(levels)
    rises = levels - lowest
    at = int(np.argmax(rises))
    rise, fell = float(rises[at]), curve.start - float(lowest[at])
    least = max(6 * curve.error(size), 0.04 * curve.descent, 0.02 * abs(float(lowest[at])))
    if rise > least and rise > 6 * Curve(steps, part.values[: size * (at + 1)]).error(size):  # of steps up to there
        onset = int(steps[int(np.argmin(levels[: at + 1]))])
        begun = int(steps[max(int(np.argmin(levels[: at + 1])) - 1, 0)])
        if any(begun <= (start.resumed_from or 0) <= int(steps[at]) for start in case.history.starts[1:]):
            return  # what was not brought back lifts the loss, at whatever rate
        weight = 3.0 if rise > 0.2 * max(fell, 1e-12) else 2.0
        told = (
            f"the loss rose again from {format.decimal(float(lowest[at]))} to {format.decimal(float(levels[at]))} "
            f"between steps {onset:,} and {int(steps[at]):,}, while the rate was high"
        )
        yield weight, Evidence("train/loss", (onset, int(steps[at])), float(levels[at]), float(lowest[at]), told)


def early_jump(curve: Curve, phases: Phases) -> Iterator[Sign]:
    """Single losses above all before them, while the rate rises or has just reached its height."""
    until = max(phases.peak_from + 0.05 * (curve.last_step - curve.first_step), curve.first_step + 10)
    part = curve.between(curve.first_step, min(until, phases.high_until))
    if part is None or len(part) < 6:
        return
    lowest = np.minimum.accumulate(part.values)
    rises = part.values - lowest
    at = int(np.argmax(rises))
    rise, fell = float(rises[at]), curve.start - float(lowest[at])
    if rise > max(12 * curve.noise, 0.2 * curve.descent, 0.6 * fell) and rise > 12 * part.noise:
        before = int(part.steps[int(np.argmin(part.values[: at + 1]))])
        told = (
            f"the loss jumped from {format.decimal(float(lowest[at]))} to {format.decimal(float(part.values[at]))} "
            f"by step {int(part.steps[at]):,}, when the rate came to its height"
        )
        yield (
            2.0,
            Evidence("train/loss", (before, int(part.steps[at])), float(part.values[at]), float(lowest[at]), told),
        )


def swings(curve: Curve, phases: Phases) -> Iterator[Sign]:
    """Levels of neighbouring stretches that differ more than the noise of single steps explains."""
    begin = curve.first_step + 0.2 * (phases.high_until - curve.first_step)
    part = curve.between(begin, phases.high_until)
    if part is None or len(part) < 60:
        return
    steps, levels, size = part.blocks(30)
    second = np.abs(np.diff(levels, n=2)) / np.sqrt(6)
    swing = 1.4826 * median(second)
    ratio = swing / max(curve.error(size), 1e-12)
    if ratio > 3.0 and swing > 0.01 * max(curve.descent, 1e-12):
        told = (
            f"the loss swings by {format.decimal(swing)} from one stretch of {size} values to the next, "
            f"{ratio:.1f} times what the noise of single steps explains"
        )
        yield (
            1.5 if ratio < 6 else 2.0,
            Evidence("train/loss", (int(steps[0]), int(steps[-1])), swing, curve.error(size), told),
        )


def validation_rises(case: Case, phases: Phases) -> Iterator[Sign]:
    """Evaluations that are worse than the one before, though nothing is learned by heart: the gap does not grow."""
    curve, gap = Curve.of(case.validation_loss()), Curve.of(case.evaluated("generalization_gap"))
    if curve is None or len(curve) < 5:
        return
    training = Curve.of(case.loss())
    begun = max(float(curve.values[0]), training.start if training is not None else 0.0)
    descent = begun - float(curve.values.min())
    part = curve.between(phases.peak_from, phases.high_until)
    if part is None or len(part) < 4 or descent <= 0:
        return
    rises = np.diff(part.values)
    at = int(np.argmax(rises))
    grown = 0.0
    if gap is not None:
        grown = gap.at(int(part.steps[at + 1])) - gap.at(int(part.steps[at]))
    if rises[at] > 0.04 * descent and grown < 0.5 * float(rises[at]):
        told = (
            f"the validation loss rose from {format.decimal(float(part.values[at]))} to "
            f"{format.decimal(float(part.values[at + 1]))} between two evaluations, at a high rate"
        )
        yield (
            1.0,
            Evidence(
                "validation/loss",
                (int(part.steps[at]), int(part.steps[at + 1])),
                float(part.values[at + 1]),
                float(part.values[at]),
                told,
            ),
        )


def late_fall(curve: Curve, phases: Phases) -> Iterator[Sign]:
    """Nothing is gained at the high rate, and much once it decays."""
    if not phases.decays:
        return
    begin = phases.peak_from + 0.4 * (phases.high_until - phases.peak_from)
    part = curve.between(begin, phases.high_until)
    if part is None or len(part) < 12:
        return
    level = curve.level(phases.high_until - (phases.high_until - begin) / 4, phases.high_until)
    fall = level - curve.end
    if not fall > max(0.1 * curve.descent, 4 * curve.error(len(part) // 4)):
        return
    if (gained := curve.progress(begin, phases.high_until)) < 0.15 * fall:
        told = (
            f"the loss fell by {format.decimal(max(gained, 0.0))} in the last stretch at the high rate, and by "
            f"{format.decimal(fall)} when the rate decayed"
        )
        yield 1.5, Evidence("train/loss", (phases.high_until, curve.last_step), fall, gained, told)
