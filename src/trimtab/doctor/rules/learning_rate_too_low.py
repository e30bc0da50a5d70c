"""learning-rate-too-low: updates are so small that the budget ends long before the model has learned what it could.

Looks for: rates that cannot move the weights (AdamW moves a weight by about the rate in each step, so the sum of all
    rates bounds how far it can get); weights that did not change; a loss that still falls as steadily in the second
    half as in the first, at a level that is still near the guess; one that ends near where it began, and fell as much
    for each bit of the rates that were added up, to the end.
Why it matters: the run is not stuck, only slow: the same budget at a higher rate gives far more.
Evidence: the sum of the rates beside the size of the weights, both halves' progress, the level, the usual rate.
Remedy: three to ten times the rate; a range test.
False alarms: fine-tuning needs little movement: there the first loss is far better than a guess. A rate that is logged
    with few digits may read 0 all along: where the loss moved it was not.
Source: Kingma and Ba 2015, arXiv 1412.6980, section 2.1 (the bound on steps); Kaplan et al. 2020, equation D.1.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy, Withheld
from trimtab.doctor.reading.curves import Curve, Floats, Phases
from trimtab.doctor.reading.levels import uniform_loss
from trimtab.doctor.remedies import change, learning_rate_in_use, scaled_rate, sound_rate, uses_adam
from trimtab.runs import format

ENOUGH = 3.0
AS_STEADY = 0.45
"""Of what the first half gained: a second half that gains as much falls as steadily."""
AS_MUCH = 0.65
"""Of the most that a quarter of the rates gained: where each gained as much, none came near what can be learned."""
KNEW = 0.6
"""Accuracy at the first evaluation, of a model that knew its task: then little is left to be gained."""
NEAR_START = 0.84
"""Of the first loss: above that little has been learned."""
GRADUALLY, GRADUAL = 0.75, 0.82
"""The same of a fall that was gradual; and what evaluations saw of it where it was."""
FEWEST_EVALUATIONS = 7
CREEPING = 0.01
"""Of the validation loss: what a run that learns gains more than."""
FEWEST, FEWEST_ROWS = 24, 7
"""Training losses; with fewer the evaluations alone are judged."""
MOVED = 0.05
"""Of the first loss: no order of the data moves it by as much while the weights stand."""
Sign = tuple[float, Evidence]


def check(case: Case) -> Iterator[Finding | Withheld]:
    """A warning when the signs make enough points."""
    curve = Curve.of(case.loss())
    if curve is None or len(curve) < FEWEST_ROWS or case.history.last_step < 0.3 * case.planned_steps:
        return
    if len(curve) < FEWEST:
        yield from _without_rates(case, curve)
        return
    phases = Phases.of(case.history.get("learning_rate"), curve.first_step, curve.last_step)
    rate = learning_rate_in_use(case)
    if not case.history.has("learning_rate") or (phases.peak == 0.0 and _has_moved(curve)):
        yield from _without_rates(case, curve)  # rates that a log rounds to nothing are not known either
        return
    if phases.peak == 0.0:
        yield _none(curve)
        return
    if curve.end > curve.start + 3 * curve.noise:
        return
    steady = list(_slow(case, curve)) or list(_steady(case, curve, phases))
    signs = [*_bound(case), *_unmoved(case), *steady, *_creeping(case), *_usual(case)]
    points = sum(weight for weight, _ in signs)
    if points < ENOUGH:
        return
    usual = sound_rate(case)
    higher = scaled_rate(case, 10)
    if usual is not None and uses_adam(case) and (rate is None or rate < usual):
        higher = float(f"{usual:.0e}")
    remedies = [change(case, f"raise the learning rate to {higher:g}", learning_rate=higher)] if higher else []
    by = (
        "trimtab find-lr" if case.target == "trimtab" else "raise the rate until the loss rises, and take a third of it"
    )
    remedies.append(Remedy(f"find the range by a short test: {by}"))
    yield Finding(
        "learning-rate-too-low",
        "warning",
        float(np.clip(0.6 + 0.1 * (points - ENOUGH), 0.5, 0.95)),
        curve.first_step,
        f"a learning rate of {phases.peak if rate is None else rate:.2g} hardly moves the weights: the loss came from "
        f"{format.decimal(curve.start)} to {format.decimal(curve.end)} only",
        tuple(evidence for weight, evidence in signs if weight > 0),
        remedies=tuple(remedies),
    )


def _has_moved(curve: Curve) -> bool:
    """Whether the loss moved by more than chance: then some rate was above 0."""
    return abs(curve.start - curve.end) > max(MOVED * abs(curve.start), 5.0 * curve.error(curve.width))


def _without_rates(case: Case, curve: Curve) -> Iterator[Finding | Withheld]:
    """What the loss alone tells: that it fell as steadily at the end as at the start, and hardly at all."""
    signs = list(_slow(case, curve))
    if not signs:
        yield Withheld("learning-rate-too-low", ("learning_rate",))
        return
    remedies = [Remedy("find the range by a short test: raise the rate until the loss rises, and take a third of it")]
    if not case.history.has("learning_rate"):
        remedies.append(Remedy("log the learning rate, so that its height can be judged"))
    yield Finding(
        "learning-rate-too-low",
        "warning",
        0.6,
        curve.first_step,
        f"the weights hardly move: the loss came from {format.decimal(curve.start)} to {format.decimal(curve.end)} "
        "only, and each evaluation was as much better as a schedule lets expect, to the end",
        tuple(evidence for _, evidence in signs),
        remedies=tuple(remedies),
    )


def _none(curve: Curve) -> Finding:
    """What to say of a rate that was 0 all along."""
    steps = curve.first_step, curve.last_step
    return Finding(
        "learning-rate-too-low",
        "error",
        0.97,
        curve.first_step,
        "the learning rate is 0 in every step: nothing is learned",
        (Evidence("learning_rate", steps, 0.0, None, f"the rate is 0 from step {steps[0]:,} to {steps[1]:,}"),),
        remedies=(Remedy("look at the schedule: is the rate 0 from the start, or never stepped?"),),
    )


def _bound(case: Case) -> Iterator[Sign]:
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


def _unmoved(case: Case) -> Iterator[Sign]:
    """The weights' norms from the first window to the last."""
    steps, names, norms_WL = case.history.layers.values("weight_norm")
    if len(steps) < 4:
        return
    first, last = norms_WL[0], norms_WL[-1]
    changes = [
        abs(float(b / a) - 1.0)
        for name, a, b in zip(names, first, last, strict=True)
        if np.isfinite(a) and np.isfinite(b) and a > 0 and "norm" not in name and "bias" not in name
    ]
    if changes and (moved := float(np.median(changes))) < 0.01:
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


def _steady(case: Case, curve: Curve, phases: Phases) -> Iterator[Sign]:
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


def _slow(case: Case, curve: Curve) -> Iterator[Sign]:
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
    if (curve.first_step > 0.05 * curve.last_step and not case.counts_epochs) or curve.end < near * curve.start:
        return
    if judged is not curve and (np.diff(judged.values) >= 0).any():
        return
    levels = judged.smoothed if judged is curve else judged.values
    gains = _gains(case, judged, levels)
    error = 4.0 * curve.error(curve.width) if judged is curve else 0.0
    if float(levels[-1]) < near * float(levels[0]) or gains.min() <= max(error, AS_MUCH * gains.max()):
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


def _creeping(case: Case) -> Iterator[Sign]:
    """Evaluation after evaluation is a little better, and all together come to less than a hundredth of the loss."""
    validation = Curve.of(case.validation_loss())
    if validation is None or len(validation) < 8:
        return
    falling = float((np.diff(validation.values) < 0).mean())
    fell = float(validation.values[0] - validation.values[-1]) / max(abs(float(validation.values[0])), 1e-12)
    gains = _gains(case, validation, validation.values)
    stands = float(gains[2:].sum()) < 0.2 * float(gains[:2].sum())  # it came to where it can come, and crept on there
    if falling > 0.95 and 0 < fell < CREEPING and not stands:
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


def _usual(case: Case) -> Iterator[Sign]:
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
