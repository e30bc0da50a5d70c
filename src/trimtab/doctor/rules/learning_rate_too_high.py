"""learning-rate-too-high: updates are so large that the run trains noisily, or worse than it could, or diverges.

Looks for several signs that each may have another reason, and counts them: a hump (the loss rises while the rate
    rises or is at its height, early in the run); a loss that swings far more than the noise of its steps explains; a
    loss that stands at what counting tokens reaches while the rate is high; a fall that only begins when the rate
    decays; evaluations of the same samples that go up and down by much to the end, or three times by very much; a loss
    that the first steps throw up and that stands from there to the end; weights that grow several-fold within the first
    steps, or layers that give back a thousand times what they did; a rate far above what AdamW is usually trained with
    at this size; a loss that left, or was no longer a number, when the rate was at its height; both losses that rose
    then, and evaluations that never came back to what they had been.
Why it matters: the run wastes its budget, or ends in a divergence; a lower rate costs nothing to try.
Evidence: each sign with its numbers.
Remedy: a third of the rate, or more warm-up when all of it happens at the start.
False alarms: the late fall of warm-up-stable-decay schedules is healthy by itself; so is noise of small batches.
    Where the rate rises again by a schedule (warm restarts, cycles) the loss rises with it.
    A training loss that ends below a hundredth of its start is not judged: its rate has kept it from nothing.
Source: own; the usual rate from Kaplan et al. 2020, arXiv 2001.08361, equation D.1; humps and weight growth from
    Wortsman et al. 2023, arXiv 2309.14322.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy, Withheld
from trimtab.doctor.reading.curves import Curve, Phases, resolution
from trimtab.doctor.reading.evaluations import error_of_tokens, judged_tokens, no_gradient_since, unchanged_since
from trimtab.doctor.reading.levels import counted_loss, judged
from trimtab.doctor.reading.medians import median
from trimtab.doctor.reading.restarts import in_cycles, rises_again
from trimtab.doctor.reading.thrown import growth, swells
from trimtab.doctor.reading.unsteady import (
    Sign,
    bounces,
    early_jump,
    hump,
    in_waves,
    knocked_out,
    late_fall,
    swings,
    validation_rises,
)
from trimtab.doctor.remedies import change, learning_rate_in_use, longer_warmup, lower_rate, sound_rate, uses_adam
from trimtab.runs import format

ROUNDED = 0.05
"""Of the level: digits that were kept."""
ENOUGH = 3.0
"""Points that the signs must make together."""
UNCERTAIN = 0.07
"""Of the loss: an evaluation that is off by so much by chance tells no level, and no rise."""
LOST = 0.25
"""Of what evaluations rose by: what is still lost of it in the end, when the rate has come down."""
LEARNED = 0.01
"""Of the loss at the start: a training loss that ends below that has not been kept from anything by its rate."""


def check(case: Case) -> Iterator[Finding | Withheld]:
    """A warning when the signs make enough points, at least one of them from the curve."""
    curve = Curve.of(case.loss())
    if curve is None or len(curve) < 24 or 0 <= curve.end < LEARNED * curve.start:
        return
    if no_gradient_since(case, curve) is not None or unchanged_since(case) is not None:
        return  # where no gradient comes no rate moves the weights; and where no weight moves none is too high
    if resolution(curve.values) > ROUNDED * abs(curve.end):
        return  # it jumps by the last digit that was kept
    phases = Phases.of(case.history.get("learning_rate"), curve.first_step, curve.last_step)
    alone: list[Sign] = [*bounces(case, curve, phases), *knocked_out(case, curve)]
    if not phases.peak > 0:
        if phases.peak != 0 and alone:
            yield _of_curves_alone(curve, alone)
        elif phases.peak != 0:
            yield Withheld("learning-rate-too-high", ("learning_rate",))
        return
    seen: list[Sign] = [*_left(case, curve, phases), *_late_rise(case, curve), *alone]
    # As where data comes in an order, or where cycles of the rate lift the loss each time.
    waves = in_waves(curve) or in_cycles(Curve.of(case.history.get("learning_rate")))
    if not waves:
        seen += early_jump(curve, phases)
    known: list[Sign] = [*growth(case), *_usual(case)]
    support = sum(weight for weight, _ in known if weight > 0)
    if curve.end - curve.floor < 0.5 * curve.descent:  # what a loss does after it has left says nothing of why
        few = (number := judged_tokens(case)) is not None and error_of_tokens(number) > UNCERTAIN
        seen += [*([] if few else _stands(case, phases)), *swells(case)]
        # Losses of neighbours that belong together swing, too, with no fault of the rate.
        if not waves and (support > 0 or seen):
            seen += [*hump(case, curve, phases), *swings(curve, phases), *late_fall(curve, phases)]
            seen += [] if few else validation_rises(case, phases)
        elif not waves and not few:
            seen += _lost_ground(case, curve, phases)
        if support >= 2.5:  # many sound runs of a usual rate do these
            seen += [*_lingers(case, curve, phases), *_poor(case)]
    points = sum(weight for weight, _ in seen) + sum(weight for weight, _ in known)
    # A rate that is far beyond, and weights that it threw at once, need no mark on the curve.
    if points < ENOUGH or (sum(weight for weight, _ in seen) < 1.0 and support < ENOUGH):
        return
    signs = sorted([*seen, *(sign for sign in known if sign[0] > 0)], key=lambda sign: -sign[0])
    rate = learning_rate_in_use(case) or phases.peak
    jumped = [evidence.steps[0] for _, evidence in seen if evidence.metric == "learning_rate"]
    onset = jumped[0] if jumped else curve.first_step
    remedies = [lower_rate(case, 0.3 if points < 5 else 0.1)]
    usual = sound_rate(case)
    if usual is not None and uses_adam(case) and rate > 3 * usual:
        value = float(f"{usual:.0e}")
        summary = f"lower the learning rate to {value:g}, which is usual at this size"
        remedies = [change(case, summary, learning_rate=value)]
    remedies += longer_warmup(case)
    is_over = case.history.ended or phases.decays
    yield Finding(
        "learning-rate-too-high",
        "warning",
        float(np.clip(0.55 + 0.1 * (points - ENOUGH), 0.65 if support >= ENOUGH else 0.5, 0.95)),
        onset,
        f"a learning rate of {rate:.2g} moves the weights too far in each step: "
        + ("the run stays far above what it could reach" if is_over else "the loss is unsteady"),
        tuple(evidence for _, evidence in signs),
        remedies=tuple(remedies),
    )


def _of_curves_alone(curve: Curve, signs: list[Sign]) -> Finding:
    """What to remark where no rate was logged: few samples to judge by, or a few steps drawn at random for each as in
    diffusion, look the same."""
    return Finding(
        "learning-rate-too-high",
        "info",
        0.5,
        curve.first_step,
        "updates move the weights too far in each step: " + "; ".join(evidence.text for _, evidence in signs),
        tuple(evidence for _, evidence in signs),
        remedies=(Remedy("a third or a tenth of the learning rate"), Remedy("log the learning rate")),
    )


def _lost_ground(case: Case, curve: Curve, phases: Phases) -> Iterator[Sign]:
    """Both losses rose while the rate was high, and evaluations never came back to what they had been."""
    validation = Curve.of(case.validation_loss())
    if validation is None or len(validation) < 5 or not phases.decays:
        return
    risen, judged_so = list(hump(case, curve, phases)), list(validation_rises(case, phases))
    best = float(validation.values.min())
    lost = float(validation.values[-1]) - best > LOST * (float(validation.values.max()) - best)
    if risen and judged_so and lost and int(validation.steps[int(validation.values.argmin())]) < phases.high_until:
        yield from (*risen, *judged_so)


def _stands(case: Case, phases: Phases) -> Iterator[Sign]:
    """The loss stands at what counting single tokens reaches, while the rate is high."""
    curve, unigram = judged(case), counted_loss(case, "unigram")
    training = Curve.of(case.loss())
    if curve is None or unigram is None or training is None:
        return
    begin = phases.peak_from + 0.5 * (phases.high_until - phases.peak_from)
    part = curve.between(begin, phases.high_until)
    if part is None:
        return
    level = median(part.values)
    fell = np.interp([begin, phases.high_until], curve.steps, curve.values)  # of the same text, however training's goes
    gained = max(training.progress(begin, phases.high_until), float(fell[0] - fell[1]))
    if 0.93 * unigram < level < 1.5 * unigram and gained < max(
        0.03 * training.descent, 2 * training.noise / np.sqrt(len(training) / 8)
    ):
        told = (
            f"at a high rate the loss stands at {format.decimal(level)}, about what unigram "
            f"frequencies reach ({format.decimal(unigram)})"
        )
        yield 2.5, Evidence("validation/loss", (int(begin), phases.high_until), level, unigram, told)


def _lingers(case: Case, curve: Curve, phases: Phases) -> Iterator[Sign]:
    """A fifth of the run or more at what the mere frequencies of tokens give, which a sound run soon leaves behind."""
    unigram = None if case.setting("objective.label_smoothing") else counted_loss(case, "unigram")
    part = curve.between(curve.first_step, phases.high_until)
    if unigram is None or part is None or len(curve) < 60:
        return
    there = np.flatnonzero(np.abs(part.smoothed / unigram - 1.0) < 0.04)
    if len(there) > 0.2 * len(curve):
        first, last = int(part.steps[there[0]]), int(part.steps[there[-1]])
        text = f"from step {first:,} to {last:,} the loss stays near what unigram frequencies reach ({unigram:.3g})"
        yield 1.5, Evidence("train/loss", (first, last), median(part.values[there]), unigram, text)


def _poor(case: Case) -> Iterator[Sign]:
    """No better in the end than counts of pairs; many runs are, so it counts little."""
    curve, bigram = judged(case), counted_loss(case, "bigram")
    if curve is None or bigram is None or case.history.last_step < 0.9 * case.planned_steps:
        return
    reached = float(curve.values.min())
    if reached > 0.97 * bigram:
        text = (
            f"the loss comes to {format.decimal(reached)} at best, where bigram counts reach {format.decimal(bigram)}"
        )
        yield 1.0, Evidence("validation/loss", (curve.first_step, curve.last_step), reached, bigram, text)


def _left(case: Case, curve: Curve, phases: Phases) -> Iterator[Sign]:
    """The loss left for good, or was no number, early and at the height of the rate."""
    loss = case.loss()
    early = curve.first_step + 0.3 * max(case.planned_steps - curve.first_step, 1)
    if loss is not None and loss.first_bad_step is not None and phases.peak_from * 0.3 <= loss.first_bad_step <= early:
        usual = sound_rate(case)
        rate = learning_rate_in_use(case) or phases.peak
        if (usual is not None and rate > 5 * usual) or rate > 0.02:
            step = loss.first_bad_step
            told = f"the loss is no number from step {step:,}, early in the run"
            yield 1.5, Evidence("train/loss", (step, step), None, None, told)
    risen = curve.end - curve.floor
    if risen > max(0.5 * curve.descent, 10 * curve.error(max(3, len(curve) // 20))):
        onset = int(curve.steps[int(np.argmin(curve.smoothed))])
        if onset <= early and onset <= phases.high_until:
            told = f"the loss left at step {onset:,}, when the rate was at its height"
            yield 1.5, Evidence("train/loss", (onset, curve.last_step), curve.end, curve.floor, told)


def _late_rise(case: Case, curve: Curve) -> Iterator[Sign]:
    """The rate itself jumps, and the loss leaves there."""
    rates = Curve.of(case.history.get("learning_rate"))
    if rates is None or len(rates) < 30:
        return
    before = np.maximum(rates.values[:-1], 1e-30)
    jumps = rates.values[1:] / before
    jumps[: max(3, len(jumps) // 20)] = 1.0
    at = int(np.argmax(jumps))
    stays = median(rates.values[at + 1 : at + 1 + max(10, len(jumps) // 10)]) > 1.5 * before[at]
    if jumps[at] < 2.0 or before[at] < 1e-3 * rates.values.max() or not stays:
        return
    if rises_again(rates, rates.steps)[at] and float(rates.values[at + 1 :].min()) < 0.5 * rates.values[at + 1]:
        return  # the restart of a schedule
    step = int(rates.steps[at + 1])
    usual = curve.level(step - 30, step - 1)
    after = curve.between(step, curve.last_step)
    if after is None or not np.isfinite(usual):
        return
    rise = median(after.values[: max(5, len(after) // 2)]) - usual
    if rise > max(6 * curve.error(5), 0.1 * curve.descent):
        told = f"the rate jumped {jumps[at]:.0f}-fold at step {step:,}, and the loss rose by {format.decimal(rise)}"
        yield (
            3.0,
            Evidence("learning_rate", (step, curve.last_step), float(rates.values[at + 1]), float(before[at]), told),
        )


def _usual(case: Case) -> Iterator[Sign]:
    """The rate beside what AdamW is usually trained with at this size; a usual rate speaks against the finding."""
    rate, usual, adam = learning_rate_in_use(case), sound_rate(case), uses_adam(case)
    if rate is None or not adam:
        return
    if usual is None:
        usual = 1e-3
        if rate <= 1e-2:
            return
    times = rate / usual
    if times > 5:
        told = f"{rate:.2g} is {times:.0f} times the rate that is usual for AdamW at this size ({usual:.1e})"
        # another trainer's may be no AdamW at all
        yield (
            0.5 if not case.config else 1.5 if times < 20 else 2.0,
            Evidence("optimizer.learning_rate", (0, 0), rate, usual, told),
        )
    elif times < 2 and adam:
        told = f"{rate:.2g} is a usual rate"
        yield -1.0, Evidence("optimizer.learning_rate", (0, 0), rate, usual, told)
