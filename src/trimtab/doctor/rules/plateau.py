"""plateau: the training loss stands still, and nothing else explains it.

Looks for: a run of a hundred steps or more in which the level of the loss never falls by more than its noise, though
    the rate is not 0.
Why it matters: such a run learns nothing, however quietly; the usual reason is a mistake in the code or the data.
Evidence: the level at the start and at the end, beside the noise.
Remedy: try to learn one batch by heart; check that the loss depends on the model, and labels on their inputs.
False alarms: a model that goes on from where it had learned all that it can.
Source: own; the test by one batch is Karpathy 2019, "A Recipe for Training Neural Networks".
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.curves import Curve
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.runs import format

FEWEST_STEPS = 100


def check(case: Case) -> Iterator[Finding]:
    """A warning when the loss is where it began, within its noise."""
    curve, rates = Curve.of(case.loss()), Curve.of(case.history.get("learning_rate"))
    if curve is None or len(curve) < 24 or curve.last_step - curve.first_step + 1 < FEWEST_STEPS:
        return
    if case.history.last_step < 0.5 * case.planned_steps or (rates is not None and float(rates.values.max()) <= 0):
        return
    _, levels, size = curve.blocks(8)
    fell = float(levels[0] - levels.min())
    error = max(4.5 * curve.error(size), 1e-6 * abs(float(levels[0])))
    if fell > error or float(levels[-1] - levels[0]) > error:
        return
    yield Finding(
        "plateau",
        "warning",
        0.8,
        curve.first_step,
        f"the loss stays near {format.decimal(float(np.median(levels)))} all along, but for the noise of single steps "
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
