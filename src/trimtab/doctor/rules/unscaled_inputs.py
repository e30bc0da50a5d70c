"""unscaled-inputs: numbers that a model is fed with lie far from unit scale.

Looks for: a root mean square above 10 of what the first layer is given (the fact `first_batch.input_rms`), or one
    feature a hundred times as large as the middle one (`input_spread`). Tokens are embedded and inputs of a norm are
    scaled by it: there is nothing to find in such models. In logs of a task with an accuracy: a first loss that is
    several times what it comes to at once, and a gradient norm of more than four times the loss at first and twenty
    times later on. Large weights make such a loss, too, but their gradient is no larger than the loss, as they divide
    it by their own size; large inputs multiply it. Or a first loss above that of a guess among a million, which comes
    down faster than an optimizer moves outputs at such a rate with inputs of usual size.
Why it matters: the first layer's gradient grows with its inputs, so that a rate that suits the rest is far too high
    there: the loss begins high, jumps, and ends worse. A feature that is far larger than the others hides them.
Evidence: the size of the inputs, and the first loss beside that of a guess; or the gradient norm beside the loss.
Remedy: subtract the mean and divide by the deviation of each feature, both of the training set; or a norm as first
    layer.
False alarms: inputs whose first weights are made for their scale: a remark where the loss begins as a guess does.
    Fine-tuning, as a low rate tells it, has large gradients of any inputs: a remark.
    Squared errors have gradients of any size: without an accuracy nothing is read off the gradient. Sums over pixels,
    labels or frames begin as high as they are long: without an accuracy that tells a mean, and where the loss does not
    rest a hundred thousand times below, the height is a remark. A
    loss that begins as high and comes down slowly is rather of weights at the wrong scale: a remark. Inputs that a
    BatchNorm meets behind the first layer do no harm, and show nowhere.
Source: LeCun et al. 1998, "Efficient BackProp", section 4.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy, Withheld
from trimtab.doctor.reading.beginnings import HighStart, high_start
from trimtab.doctor.reading.classes import num_classes
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.levels import constant_loss
from trimtab.doctor.reading.medians import median
from trimtab.runs import format

CODE: Final = "unscaled-inputs"
LARGE: Final = 10.0
SPREAD: Final = 100.0
REMEDIES: Final = (
    Remedy("scale each input: less its mean, over its deviation, both of the training set"),
    Remedy("or begin the model with a norm of its inputs"),
)
FEWEST: Final = 20
AT_FIRST: Final = 4.0
"""Times the loss: the gradient norm of a sound classifier begins below three times its loss."""
LATER: Final = 20.0
"""The same after the first tenth, as long as the loss is not near zero: of sound ones it is below ten."""
NEAR_ZERO: Final = 0.05
DROPS: Final = 0.5
"""Of the first loss: below that it is after a tenth of the run."""
OF_NUMBERS: Final = 10.0
"""Times what always saying the mean costs: outputs three times as far from it as targets are."""
OF_TUNING: Final = 2e-4
"""A rate up to that is of fine-tuning, where gradients are as large of any inputs, of tokens, too."""


def check(case: Case) -> Iterator[Finding | Withheld]:
    """A warning; a remark where nothing shows it in the loss."""
    if case.setting("data.tokenizer.name") is not None and case.fact("first_batch") is None:
        return  # texts are embedded; a gradient that is large beside the loss is of a temperature, or of a sum
    if case.fact("first_batch") is None:
        start, said = high_start(case), list(_by_gradients(case))
        seen = any(isinstance(one, Finding) for one in said)
        yield from said if start is None or seen else [_by_start(start)]
        return
    size, spread = case.number("first_batch", "input_rms"), case.number("first_batch", "input_spread")
    if size is None:
        return
    uneven = spread is not None and spread > SPREAD and size > 1.0
    if size <= LARGE and not uneven:
        return
    told = f"the numbers that the first layer is given have a root mean square of {size:.3g}"
    evidence = [Evidence("facts.first_batch.input_rms", (0, 1), size, 1.0, told)]
    if uneven and spread is not None:
        told = f"the largest feature is {spread:.3g} times as large as the middle one"
        evidence.append(Evidence("facts.first_batch.input_spread", (0, 1), spread, 1.0, told))
    curve, number, constant = Curve.of(case.loss()), num_classes(case), constant_loss(case)
    high = False
    if curve is not None and (constant is not None or (number is not None and number > 1)):
        guess = math.log(number) if constant is None and number is not None else 1.0
        high = float(curve.values[0]) > (1.3 * guess if constant is None else OF_NUMBERS)
        told = (
            f"the first loss is {format.decimal(float(curve.values[0]))}, where guessing costs {format.decimal(guess)}"
        )
        evidence.append(
            Evidence("train/loss", (curve.first_step, curve.first_step), float(curve.values[0]), guess, told)
        )
    grave = size > 3 * LARGE or high or uneven
    yield Finding(
        CODE,
        "warning" if grave else "info",
        0.9 if high or size > 3 * LARGE else 0.75,
        1,
        f"the inputs are far from unit scale (root mean square {size:.3g}): the first layer learns at another speed "
        "than the rest",
        tuple(evidence),
        remedies=REMEDIES,
    )


def _by_start(start: HighStart) -> Finding:
    """A loss that begins far too high: a warning where it comes down faster than weights alone could bring it down, and
    is no sum."""
    told = (
        f"the first loss is {format.decimal(start.first)}, and a quarter of that by step {start.quarter:,}: outputs "
        f"moved by {start.moved:,.0f} times the learning rate in a step"
    )
    return Finding(
        CODE,
        "warning" if start.is_fast and start.is_mean else "info",
        0.65 if start.is_fast and start.is_mean else 0.5 if start.is_fast else 0.3,
        1,
        "the inputs are far from unit scale, as it seems, or weights are drawn at the wrong scale"
        if start.is_fast
        else "the inputs may be far from unit scale: the loss begins far too high",
        (Evidence("train/loss", (1, start.quarter), start.first, start.level, told),),
        remedies=REMEDIES,
    )


def _by_gradients(case: Case) -> Iterator[Finding | Withheld]:
    """What a log tells: a gradient that is far larger than the loss, of a loss that began far too high."""
    norms, loss = Curve.of(case.history.get("grad_norm")), Curve.of(case.loss())
    judged = case.history.has("train/accuracy") or case.history.has("validation/accuracy")
    if norms is None or loss is None or not judged or len(norms) < FEWEST:
        yield Withheld(CODE, ("facts.first_batch, or grad_norm and an accuracy",))
        return
    beside = np.interp(norms.steps, loss.steps, loss.values)
    early, tenth = max(1, len(norms) // 30), max(3, len(norms) // 10)
    counted = beside[tenth:] > NEAR_ZERO
    first = median(norms.values[:early] / np.maximum(beside[:early], 1e-12))
    later = median(norms.values[tenth:][counted] / beside[tenth:][counted]) if counted.any() else 0.0
    level = median(beside[tenth : 2 * tenth])
    if first < AT_FIRST or later < LATER or level > DROPS * float(beside[0]) or counted.sum() < FEWEST // 2:
        yield Withheld(CODE, ("facts.first_batch",))  # smaller inputs, or those that a norm follows, do not show here
        return
    steps = (norms.first_step, norms.last_step)
    told = f"the gradient norm is {first:.2g} times the loss at first, and {later:.2g} times from the first tenth on"
    fell = f"the first loss is {format.decimal(float(beside[0]))}, and {format.decimal(level)} after a tenth of the run"
    rates = Curve.of(case.history.get("learning_rate"))
    new = rates is None or float(rates.values.max()) > OF_TUNING
    yield Finding(
        CODE,
        "warning" if new else "info",
        0.75 if new else 0.5,
        1,
        "the inputs are far from unit scale, as it seems: gradients are far larger than such a loss makes of inputs of "
        "usual size",
        (
            Evidence("grad_norm", steps, later, AT_FIRST, told),
            Evidence("train/loss", (loss.first_step, int(norms.steps[tenth])), float(beside[0]), level, fell),
        ),
        remedies=REMEDIES,
    )
