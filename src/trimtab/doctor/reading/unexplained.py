"""Whether a regression explains nothing of its validation targets, though it could learn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.reading.blind import hardly_moves, is_learned_by_heart, of_two_kinds
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.evaluations import judged_texts
from trimtab.doctor.reading.levels import constant_loss, few_are_most
from trimtab.doctor.reading.medians import median
from trimtab.doctor.reading.regularizers import largest_decay, largest_dropout
from trimtab.doctor.reading.thrown import was_thrown

EXPLAINED: Final = 0.06
"""Of the validation targets: more is a relation, however few texts there are."""
TAUGHT, JUDGED = 3.0, 20.0
"""What random labels teach goes by chance with the inputs: with a few directions in these it explains up to about that
many over the root of the number of training texts. And the best of some evaluations explains by chance less than that
many over the number of validation texts."""
MOST, PASSES = 1.05, 3.0
"""A regression that costs no more than so many times what always saying the mean does has learned nothing in so many
passes over the data."""
SLOW, PULLED, DROPPED = 1e-4, 1.0, 0.5
"""Usual rates below, and weight decay and dropout above that, may be why a regression has not learned."""
FEWEST_NEAR, NOTHING, MUCH, LITTLE = 400, 0.05, 0.2, 0.15
"""Rows, of which the nearest ones explain next to nothing, or much, of a number's spread; and what may be explained by
chance, all the same, where they explain nothing."""
FEWEST_STILL, DEAD = 2, 0.5
"""So may parameters without a gradient, and units that give nothing, of all."""


@final
@dataclass(frozen=True, slots=True)
class Unexplained:
    """Evaluations that explain nothing."""

    blind: float
    """What answers cost that know no input."""
    by_heart: bool
    """Whether the training loss fell far below that; else it stands there."""


def unexplained(case: Case, validation: Curve, training: Curve) -> Unexplained | None:
    """None where something is explained, or another reason than the labels is known."""
    blind = _blind(case, validation)
    if blind is None or of_two_kinds(case) or (case.number("counting", "near") or 0.0) > MUCH:
        return None
    if is_learned_by_heart(training, blind):
        return Unexplained(blind, True)
    stands = training.end < MOST * blind and case.epochs() >= PASSES
    return Unexplained(blind, False) if stands and not _could_not_learn(case, training) else None


def _could_not_learn(case: Case, training: Curve) -> bool:
    """Whether it is known why a loss stands."""
    rates = Curve.of(case.history.get("learning_rate"))
    slow = rates is not None and median(rates.values) < SLOW
    held = (largest_decay(case) or 0.0) >= PULLED or (largest_dropout(case) or 0.0) > DROPPED
    return slow or held or hardly_moves(case) or _is_cut_off(case) or was_thrown(case, 0, training.last_step)


def _is_cut_off(case: Case) -> bool:
    """Whether layers get no gradient at all, or half of all units give nothing."""
    _, _, norms_WL = case.history.layers.values("grad_norm")
    _, _, dead_EL = case.history.examined.values("dead_fraction")
    still = norms_WL.size > 0 and int((norms_WL == 0).all(axis=0).sum()) >= FEWEST_STILL
    return still or (dead_EL.size > 0 and float(np.nan_to_num(dead_EL[-1]).mean()) >= DEAD)


def _blind(case: Case, validation: Curve) -> float | None:
    """What always saying the mean costs, where evaluations explain nothing and do not gain; None elsewhere."""
    explained = Curve.of(case.evaluated("validation/r2"))
    if explained is None or few_are_most(case) or case.setting("objective.name") == "quantile":
        return None  # which are judged by far targets alone, or say a quantile and no mean
    best = float(explained.values.max())
    if best >= _by_chance(case, explained):
        return None
    if float(explained.values[-2:].max()) >= best:
        return None  # it still gains
    known = case.target == "trimtab" and case.number("targets", "deviation") is not None
    # Of another loss than squares, what answers cost that are near the mean.
    return constant_loss(case) or (median(validation.values) if known and best > 1.0 - MOST else None)


def _by_chance(case: Case, explained: Curve) -> float:
    """The most that is explained where inputs have nothing to do with targets."""
    taught, judged = case.number("targets", "total") or 1.0, judged_texts(case) or 1.0
    near, late = case.number("counting", "near"), explained.values[-max(2, len(explained) // 3) :]
    if near is not None and near < NOTHING and taught >= FEWEST_NEAR and median(late) < EXPLAINED:
        return LITTLE  # rows near each other tell nothing of it, and what was found at some time is lost
    return min(EXPLAINED, TAUGHT / math.sqrt(taught), JUDGED / judged)
