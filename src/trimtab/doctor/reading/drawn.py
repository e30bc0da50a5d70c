"""Weights that are drawn far too large, as the settings say."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.levels import uniform_loss
from trimtab.doctor.remedies import uses_adam

ENLARGES: Final = 2.0
LARGE: Final = 10.0
"""Root mean square of what a block gives back; of blocks that add to what they got it begins below 1."""
SPREAD: Final = 0.5
LEARNED: Final = 0.3
"""Of what a guess costs, on other texts."""


def as_set(case: Case) -> Iterator[Evidence]:
    """A deviation, as it is set, at which each matrix makes what goes through it several times as large, and blocks
    that give back as much: what norms hide from the loss is in the way of learning all the same."""
    steps, _, rms_WL = case.history.layers.values("activation_rms")
    times = enlarges(case)
    if times is None or (case.fact("first_pass") or {}).get("trained") or not len(steps) or case.fact("given"):
        return
    set_to, width = case.setting("model.initialization.standard_deviation"), case.setting("model.hidden_size")
    if times > ENLARGES and (first := float(np.nanmax(rms_WL[0]))) > LARGE:
        text = (
            f"weights are drawn with a deviation of {set_to:.2g}, so that each of {width} units makes what it gets "
            f"{times:.1f} times as large; blocks give back {first:.3g} from the first step on, where 1 is usual"
        )
        yield Evidence("model.initialization.standard_deviation", (0, int(steps[0])), set_to, 0.02, text)


def enlarges(case: Case) -> float | None:
    """How many times as large a matrix makes what it gets, by the deviation as it is set; None where it is not."""
    set_to, width = (case.setting(f"model.{name}") for name in ("initialization.standard_deviation", "hidden_size"))
    normal = case.setting("model.initialization.matrices") == "normal"
    there = normal and isinstance(set_to, int | float) and isinstance(width, int)
    return set_to * math.sqrt(width) if there else None


def out_of_reach(case: Case) -> Iterator[Evidence]:
    """Embeddings of a bag of tokens that are drawn so large that the steps of Adam cannot move them by as much in the
    whole run: what was drawn stays. Not where other texts are told apart all the same."""
    set_to, rates = case.setting("model.initialization.standard_deviation"), Curve.of(case.history.get("learning_rate"))
    drawn = case.setting("model.name") == "mlp" and not (case.fact("first_pass") or {}).get("trained")
    if not drawn or not isinstance(set_to, int | float) or rates is None or not uses_adam(case) or case.fact("given"):
        return
    judged, guess = Curve.of(case.validation_loss()), uniform_loss(case)
    if judged is not None and guess is not None and float(judged.values.min()) < LEARNED * guess:
        return
    way = float(rates.values.mean()) * case.planned_steps
    if set_to >= SPREAD and way < set_to:
        text = (
            f"embeddings are drawn with a deviation of {set_to:.2g}, and all rates of the run together are {way:.2g}: "
            "steps of Adam, which are about as large as the rate, cannot unlearn what was drawn"
        )
        yield Evidence("model.initialization.standard_deviation", (0, case.planned_steps), set_to, 0.02, text)
