"""Signs that updates are too small, each with its weight: what bounds them, what they moved, what they gained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence
from trimtab.doctor.reading.curves import Curve, Floats, Phases
from trimtab.doctor.reading.levels import uniform_loss
from trimtab.doctor.reading.medians import median
from trimtab.doctor.reading.unsteady import Sign
from trimtab.doctor.remedies import learning_rate_in_use, sound_rate, uses_adam
from trimtab.runs import format

AS_STEADY: Final = 0.45
"""Of what the first half gained: a second half that gains as much falls as steadily."""
AS_MUCH: Final = 0.65
"""Of the most that a quarter of the rates gained: where each gained as much, none came near what can be learned."""
AS_MUCH_RISING: Final = 0.5
"""The same where the last gained most: that is further from being done."""
KNEW: Final = 0.6
"""Accuracy at the first evaluation, of a model that knew its task: then little is left to be gained."""
NEAR_START: Final = 0.84
"""Of the first loss: above that little has been learned."""
GRADUALLY, GRADUAL = 0.75, 0.82
"""The same of a fall that was gradual; and what evaluations saw of it where it was."""
FEWEST_EVALUATIONS: Final = 7
LEFT, GAINING = 0.5, 1 / 3
"""Of the first loss, and of the best quarter so far: what is left, and still gained, of a rate perhaps too low."""
HALF: Final = 0.5
"""Of the first loss: weights by which it came below that were moved."""
OF_DESCENT: Final = 5e-3
CREEPING: Final = 0.01
"""Of the validation loss: what a run that learns gains more than."""


def bound(case: Case) -> Iterator[Sign]:
    """How far AdamW can have moved a weight at all, beside how large weights are."""
    rates = case.history.get("learning_rate")
    size = case.setting("model.initialization.standard_deviation")
    if case.setting("model.initialization.matrices") == "xavier_uniform":  # weights are as large as their width says
        return
    if rates is None or not uses_adam(case) or not isinstance(size, int | float) or size <= 0:
        return
    rate, usual = learning_rate_in_use(case), sound_rate(case)
    if rate is not None and usual is not None and rate > usual / 4:
        return  # it is the steps that are few
    loss = Curve.of(case.loss())
    if loss is not None and 0.0 <= loss.end < HALF * loss.start:
        return  # so far was far enough
    total = float((np.nan_to_num(rates.mean) * rates.columns.samples).sum())
    if total < 0.5 * size:
        yield (
            3.0,
            Evidence(
                "learning_rate",
                (1, case.history.last_step),
                total,
                float(size),
                f"all {case.history.last_step:,} updates of AdamW together can move a weight by about {total:.1g} at "
                f"most, and weights begin at {size:g}",
            ),
        )


def unmoved(case: Case) -> Iterator[Sign]:
    """The weights' norms from the first window to the last."""
    steps, names, norms_WL = case.history.layers.values("weight_norm")
    if len(steps) < 4:
        return
    matrices = [at for at, name in enumerate(names) if "norm" not in name and "bias" not in name]
    first, last = norms_WL[0, matrices], norms_WL[-1, matrices]
    there = np.isfinite(first) & np.isfinite(last) & (first > 0)
    if there.any() and (moved := median(np.abs(last[there] / first[there] - 1.0))) < 0.01:
        yield (
            1.0,
            Evidence(
                "layer/*/weight_norm",
                (int(steps[0]), int(steps[-1])),
                moved,
                0.1,
                f"the norm of the median layer's weights changed by {100 * moved:.2g} % in the whole run",
            ),
        )


def steady(case: Case, curve: Curve, phases: Phases) -> Iterator[Sign]:
    """The second half gains nearly as much as the first, and the level is still near where it began."""
    begin, end = min(phases.peak_from, curve.last_step), phases.high_until
    if end - begin < 0.3 * (curve.last_step - curve.first_step):
        return
    middle = (begin + end) / 2
    early, late = curve.progress(begin, middle), curve.progress(middle, end)
    error = curve.error(max(3, len(curve) // 16))
    uniform = uniform_loss(case)
    if late < 4 * error or early <= 0 or late < AS_STEADY * early:
        return
    near = uniform is not None and curve.end > 0.6 * uniform
    yield (
        2.0 if near else 1.0,
        Evidence(
            "train/loss",
            (int(begin), int(end)),
            late,
            AS_STEADY * early,
            f"the loss fell by {format.decimal(early)} from step {int(begin):,} to {int(middle):,} and by "
            f"{format.decimal(late)} from there to {int(end):,}: as steadily as before",
        ),
    )


def slow(case: Case, curve: Curve) -> Iterator[Sign]:
    """Near where it began in the end, and each rate gained as much as the one before: by quarters of the sum of all
    rates, so that a schedule that lets the rate decay does not hide it. Where evaluations saw nearly all of the fall,
    so that none was made at once, three quarters of the start are near."""
    validation = Curve.of(case.validation_loss())
    judged = curve if validation is None or len(validation) < FEWEST_EVALUATIONS else validation
    start = max(curve.start, float(judged.values[0]))
    gradual = judged is validation and float(judged.values[0] - judged.values[-1]) > GRADUAL * (
        start - judged.values[-1]
    )
    near = GRADUALLY if gradual else NEAR_START
    chance = 2.0 * curve.error(curve.width) if judged is validation else 0.0  # evaluations have less of it
    if curve.first_step > 0.05 * curve.last_step and not case.counts_epochs:
        return
    if curve.end + chance < near * curve.start:
        return
    if judged is not curve and (np.diff(judged.values) >= 0).any():
        return
    levels = judged.smoothed if judged is curve else judged.values
    if float(levels[-1]) < near * float(levels[0]):
        return
    gains = _gains(case, judged, levels)
    error = 4.0 * curve.error(curve.width) if judged is curve else 0.0
    most = int(np.argmax(gains))
    if gains.min() <= max(error, (AS_MUCH if most < 3 else AS_MUCH_RISING) * gains[most]):
        return
    if _knew(case):
        return
    yield (
        3.0,
        Evidence(
            "validation/loss" if judged is validation else "train/loss",
            (judged.first_step, judged.last_step),
            float(gains[-1]),
            float(gains[0]),
            "in quarters of all that the rates add up to, the loss fell by "
            + ", ".join(format.decimal(float(gain)) for gain in gains)
            + f": what a rate gains did not get less, and the loss is still {float(levels[-1] / levels[0]):.0%} of the "
            "first",
        ),
    )


def still_gains(case: Case) -> Evidence | None:
    """Each evaluation is better than the one before, each quarter of the rates gained a third of the best before it and
    more, and half of the loss is left: of a budget that a run could use, the last quarter gains little."""
    judged = Curve.of(case.validation_loss())
    if judged is None or len(judged) < FEWEST_EVALUATIONS or (np.diff(judged.values) >= 0).any() or _knew(case):
        return None
    gains, left = _gains(case, judged, judged.values), float(judged.values[-1] / judged.values[0])
    if judged.values[-1] <= 0 or left < LEFT or (gains < GAINING * np.maximum.accumulate(gains)).any():
        return None
    told = (
        "in quarters of all that the rates add up to, the loss fell by "
        + ", ".join(format.decimal(float(gain)) for gain in gains)
        + f", with each evaluation, and {left:.0%} of the first is left"
    )
    return Evidence("validation/loss", (judged.first_step, judged.last_step), float(gains[-1]), float(gains[0]), told)


def _knew(case: Case) -> bool:
    accuracy = Curve.of(case.evaluated("validation/accuracy"))
    return accuracy is not None and float(accuracy.values[0]) >= KNEW


def _gains(case: Case, curve: Curve, levels: Floats) -> Floats:
    """What was gained in each quarter of all that the rates add up to; of rates that are not known, as half a cosine
    would have them."""
    rates = Curve.of(case.history.get("learning_rate"))
    steps = np.arange(curve.last_step + 1)
    if rates is None or not rates.values.any():
        applied = np.cumsum(0.55 + 0.45 * np.cos(np.pi * steps / max(case.planned_steps, 1)))
    else:
        applied = np.cumsum(np.interp(steps, rates.steps, rates.values))
    done = applied[curve.steps]
    at: Floats = np.interp(np.linspace(done[0], done[-1], 5), done, levels)
    return -np.diff(at)


def creeping(case: Case) -> Iterator[Sign]:
    """Evaluation after evaluation is a little better, and all together come to less than a hundredth of the loss."""
    validation, training = Curve.of(case.validation_loss()), Curve.of(case.loss())
    if validation is None or len(validation) < 8 or training is None or not training.from_start:
        return
    falling = float((np.diff(validation.values) < 0).mean())
    fell = float(validation.values[0] - validation.values[-1]) / max(abs(float(validation.values[0])), 1e-12)
    if falling <= 0.95 or not 0 < fell < CREEPING:
        return
    gains = _gains(case, validation, validation.values)
    stands = float(gains[2:].sum()) < 0.2 * float(gains[:2].sum())  # it came to where it can come, and crept on there
    if not stands:
        yield (
            3.0,
            Evidence(
                "validation/loss",
                (validation.first_step, validation.last_step),
                fell,
                CREEPING,
                f"nearly each of {len(validation)} evaluations is better than the one before, and the last is better "
                f"than the first by {100 * fell:.2g} % only",
            ),
        )


def of_descent(case: Case) -> Iterator[Sign]:
    """A rate of Adam's size with plain descent, of weights that are new and a loss that is hardly lower for it."""
    rate, momentum = learning_rate_in_use(case), case.setting("optimizer.momentum") or 0.0
    loss, guess = Curve.of(case.loss()), uniform_loss(case)
    if case.setting("optimizer.name") != "sgd" or rate is None or loss is None or guess is None:
        return
    step = rate / max(1.0 - float(momentum), 1e-6)
    if step < OF_DESCENT and loss.start > NEAR_START * guess and loss.end > LEFT * loss.start:
        told = (
            f"with momentum a gradient moves the weights by {step:.2g} of itself in all; plain descent from new "
            "weights usually takes 0.05 to 1, and rates of Adam's size are far too small for it"
        )
        yield 3.0, Evidence("optimizer.learning_rate", (1, case.history.last_step), step, 0.05, told)


def usual(case: Case) -> Iterator[Sign]:
    """The rate beside what AdamW is usually trained with at this size; a usual rate speaks against the finding."""
    rate, usual, adam = learning_rate_in_use(case), sound_rate(case), uses_adam(case)
    if rate is None or adam is False:
        return
    uniform, loss = uniform_loss(case), Curve.of(case.loss())
    pretrained = uniform is not None and loss is not None and loss.start < 0.8 * uniform
    if usual is not None and not pretrained:
        if rate < usual / 15:
            yield (
                1.0,
                Evidence(
                    "optimizer.learning_rate",
                    (0, 0),
                    rate,
                    usual,
                    f"{rate:.2g} is a {usual / rate:.0f}th of the usual rate for AdamW at this size ({usual:.1e})",
                ),
            )
        elif rate > usual / 4:
            yield (-2.0, Evidence("optimizer.learning_rate", (0, 0), rate, usual, f"{rate:.2g} is a usual rate"))
    elif usual is None and rate < 2e-6:
        yield (
            1.0,
            Evidence("learning_rate", (0, 0), rate, 1e-5, f"{rate:.2g} is less than fine-tuning usually takes (1e-5)"),
        )
