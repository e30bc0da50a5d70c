"""unscaled-inputs: numbers that a model is fed with lie far from unit scale.

Looks for: a root mean square above 10 of what the first layer is given (the fact `first_batch.input_rms`), or one
    feature a hundred times as large as the middle one (`input_spread`). Tokens are embedded and inputs of a norm are
    scaled by it: there is nothing to find in such models.
Why it matters: the first layer's gradient grows with its inputs, so that a rate that suits the rest is far too high
    there: the loss begins high, jumps, and ends worse. A feature that is far larger than the others hides them.
Evidence: the size of the inputs, and the first loss beside that of a guess.
Remedy: subtract the mean and divide by the deviation of each feature, both of the training set; or a norm as first
    layer.
False alarms: inputs whose first weights are made for their scale: a remark where the loss begins as a guess does.
Source: LeCun et al. 1998, "Efficient BackProp", section 4.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from trimtab.doctor.case import Case
from trimtab.doctor.classes import num_classes
from trimtab.doctor.curves import Curve
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.runs import format

CODE: Final = "unscaled-inputs"
LARGE: Final = 10.0
SPREAD: Final = 100.0


def check(case: Case) -> Iterator[Finding]:
    """A warning; a remark where nothing shows it in the loss."""
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
    curve, number = Curve.of(case.loss()), num_classes(case)
    high = False
    if curve is not None and number is not None and number > 1:
        guess = math.log(number)
        high = float(curve.values[0]) > 1.3 * guess
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
        remedies=(
            Remedy("scale each input: less its mean, over its deviation, both of the training set"),
            Remedy("or begin the model with a norm of its inputs"),
        ),
    )
