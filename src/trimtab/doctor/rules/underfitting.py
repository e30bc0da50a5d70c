"""underfitting: training and validation loss both stay high, and no longer fall.

Looks for: a training loss that gains hardly anything in the second half of the run, at a level that is known to be
    high: what bigram counts reach on the same text; with hardly a gap to the validation loss. Also one that gains
    more, but so little that it would take 32 times the steps to come to that level.
Why it matters: more of the same changes nothing; the model, its regularization or its input is the limit.
Evidence: the level beside the yardstick, the progress of the last stretch, the gap, the size of the model.
Remedy: a larger model (at a usual rate, where that of the small one is higher), less regularization, a longer or better
    schedule; where controllers cut the learning rate to less than half, leaving it alone.
False alarms: tasks whose noise is irreducible. A run of fewer than 20 tokens for each parameter is short, whatever the
    size of its model, and stands still where its rate has come down; but one that rests where pairs are, at a high
    rate, sees one token alone. Without a yardstick it is withheld, but
    where both losses stand from the first third on, at a high rate, at two thirds of the loss of a guess; where they
    lie close together at three quarters of it and more they may still creep. That is a remark, as fine-tuning and hard
    data do the same, and a warning where weights are new and classes are as many as letters.
Source: own; the project's rules of thumb; Hoffmann et al. 2022, arXiv 2203.15556 (tokens for each parameter).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy, Withheld
from trimtab.doctor.reading.context import rests_at_pairs
from trimtab.doctor.reading.curves import Curve, Phases
from trimtab.doctor.reading.evaluations import unchanged_since
from trimtab.doctor.reading.levels import (
    are_weights_new,
    could_be_frequencies,
    counted_loss,
    is_first_stand,
    judged,
    tokens_seen,
)
from trimtab.doctor.reading.medians import median
from trimtab.doctor.reading.rates import usual_rate
from trimtab.doctor.remedies import change, learning_rate_in_use, uses_adam
from trimtab.events import Adjust
from trimtab.runs import format

STILL = 0.05
"""Of the whole descent: a stretch that gains less stands still."""
OF_WORDS, OF_LETTERS = 2.5, 3.3
"""A first loss above that is of a dozen classes or more, or of as many as an alphabet has letters."""
FEWEST_TOKENS = 20.0
"""For each parameter: with fewer the steps are what is short, and not the model (Hoffmann et al. 2022)."""
PLENTY = 100.0
"""The same, from which on a loss that still creeps may do so twice as fast: more steps are not what is wanted."""
OF_SINGLE = 0.62
"""Of the loss of a guess: what frequencies of single tokens come to in texts, of characters and of words alike."""
CREEPS = (0.03, 0.085)
"""Of the whole fall: what is gained after the first third by losses that stand; and by those that lie close together,
as high as `HIGH` of the loss of a guess, where a model that learns falls fast."""
HIGH, HIGHEST, CLOSE = 0.75, 0.86, 0.035
"""Of the first loss. What stands above the second has not learned frequencies even: that is a plateau."""
FEWEST, FEWEST_ROWS = 24, 9
"""Training losses, to hold against a yardstick; and where only levels are compared."""
DROWNED = 0.1
"""Of the loss: steps that scatter by more are of batches too small for any model."""
FIRST_STEPS = 30
"""A log that begins later does not tell what a guess costs."""
DOUBLINGS = 5.0
"""Of the steps, that would be needed: 32 times as many are not what is wanted."""
NEAR = 0.97
"""Of the yardstick: a level above that is no better than counting."""


def check(case: Case) -> Iterator[Finding | Withheld]:
    """A warning when the loss stands still at a level that counting reaches, too."""
    training, level = Curve.of(case.loss()), judged(case)
    bigram, unigram = counted_loss(case, "bigram"), counted_loss(case, "unigram")
    if training is None or level is None or len(training) < FEWEST_ROWS or unchanged_since(case) is not None:
        return
    if bigram is None:
        told = None if case.fact("task") is not None else _of_curves_alone(case, training)
        yield told or Withheld("underfitting", ("yardsticks (what counting reaches on the same data)",))
        return
    is_judged = case.validation_loss() is not None
    if len(training) < FEWEST:
        return
    if is_first_stand(case, float(level.values.min())):
        return
    tokens, parameters = tokens_seen(case), case.number("parameters", "total")
    short = tokens is not None and parameters is not None and tokens < FEWEST_TOKENS * parameters
    if short and not rests_at_pairs(case, training, bigram):
        return
    lowest = float(level.values.min()) if is_judged else level.floor
    if (case.history.last_step < 0.8 * case.planned_steps and case.history.ended is None) or lowest < (NEAR * bigram):
        return
    middle, until = (training.first_step + training.last_step) / 2, training.last_step
    gained = training.level(middle - 0.1 * (until - middle), middle + 0.1 * (until - middle)) - training.end
    plenty = tokens is not None and bool(parameters) and tokens > PLENTY * (parameters or 0.0)
    still, error = (2.0 if plenty else 1.0) * STILL * training.descent, training.error(max(3, len(training) // 20))
    if len(level) >= 5 and is_judged:
        gained = float(np.interp(middle, level.steps, level.values)) - float(level.values[-1])  # free of noise
    elif 2 * error > still:
        return  # too few steps to tell standing still from noise
    left = training.end - training.floor > 0.25 * training.descent
    # Twice the steps gained so much: at that pace it takes many times as many to come to where counting is.
    far = len(level) >= 5 and is_judged and lowest - bigram > DOUBLINGS * max(gained, 0.0)
    if (gained > still and not far) or left:
        return
    gap = Curve.of(case.evaluated("generalization_gap"))
    if gap is not None and gap.end - max(0.0, median(gap.values[:2])) > 0.1 * abs(lowest):
        return  # one that was there from the beginning is of validation text that is harder
    if gap is None and is_judged and float(level.values[-1]) - training.end > 0.1 * abs(lowest):
        return  # the training samples are learned all the same
    size = case.number("parameters", "non_embedding")
    worse = unigram is not None and lowest > 0.99 * unigram
    evidence = [
        Evidence(
            "validation/loss" if is_judged else "train/loss",
            (int(middle), level.last_step),
            lowest,
            bigram,
            f"the loss comes to {format.decimal(lowest)}, where bigram counts reach {format.decimal(bigram)} on the "
            "same text",
        ),
        Evidence(
            "train/loss",
            (int(middle), until),
            gained,
            still,
            f"from step {int(middle):,} to {until:,} the loss fell by only "
            f"{format.decimal(max(gained, 0.0))} of {format.decimal(training.descent)} in the whole run",
        ),
    ]
    if gap is not None:
        evidence.append(
            Evidence(
                "generalization_gap",
                (gap.first_step, gap.last_step),
                gap.end,
                None,
                f"the gap to the validation loss is {format.decimal(gap.end)}: no overfitting",
            )
        )
    if size is not None:
        evidence.append(
            Evidence(
                "facts.parameters",
                (0, 0),
                size,
                None,
                f"the model has {format.short(size)} parameters without embeddings",
            )
        )
    where = "near" if lowest < 1.1 * bigram else "above"
    too_small = "the model is too small for this data, or held back too much"
    cause = f"{too_small}: both losses stand still {where} bigram counts"
    onset, remedies = training.first_step, tuple(_remedies(case))
    if (cuts := _cuts(case)) is not None:
        onset, kept, names = cuts
        cause = f"{names} cut the learning rate to {kept:.0%} of its schedule, and both losses stand still since"
        remedies = tuple(_without_cuts(case))
    yield Finding(
        "underfitting",
        "warning",
        0.65 if worse else 0.85,
        onset,
        cause,
        tuple(evidence),
        remedies=remedies,
    )


def _of_curves_alone(case: Case, training: Curve) -> Finding | None:
    """Of a log without yardsticks, of many classes, as tokens are: both losses stand from the first third on, at a rate
    that is high, about where frequencies of single tokens lie."""
    validation = Curve.of(case.validation_loss())
    if validation is None or len(validation) < 6 or case.history.last_step < 0.8 * case.planned_steps:
        return None
    phases = Phases.of(case.history.get("learning_rate"), training.first_step, training.last_step)
    third = training.first_step + (training.last_step - training.first_step) / 3
    lowest, start = float(validation.values.min()), training.start
    if (
        phases.high_until < third
        or training.first_step > FIRST_STEPS
        or start < OF_WORDS
        or not 0.0 < lowest < 0.9 * start
    ):
        return None
    if could_be_frequencies(case, start, lowest) is False:
        return None
    if lowest < OF_SINGLE * start or abs(float(validation.values[-1]) - training.end) > 0.1 * lowest:
        return None
    fell = float(np.interp(third, validation.steps, validation.values)) - float(validation.values[-1])
    close = HIGH < lowest / start < HIGHEST and abs(float(validation.values[-1]) - training.end) < CLOSE * start
    if not close and len(training) < FEWEST:
        return None
    creeps = CREEPS[1 if close else 0]
    if abs(fell) > creeps * (start - lowest) or abs(training.progress(third, training.last_step)) > max(
        creeps * training.descent, 2 * training.error(len(training) // 6)
    ):
        return None
    text = (
        f"the validation loss fell by {format.decimal(fell)} from step {round(third):,} on, and stands at "
        f"{format.decimal(lowest)}, {lowest / start:.0%} of the first loss: of texts the frequencies of single tokens "
        "give about as much"
    )
    is_text = start > OF_LETTERS and are_weights_new(case) and training.noise < DROWNED * lowest
    unless = "" if is_text else ", unless it was trained before or its data tell no more"
    return Finding(
        "underfitting",
        "warning" if is_text else "info",
        0.6 if is_text else 0.5,
        training.first_step,
        "both losses stand still where hardly more than frequencies is learned: the model is too small for its data, "
        f"or a part of it does not learn{unless}",
        (Evidence("validation/loss", (round(third), validation.last_step), lowest, OF_SINGLE * start, text),),
        remedies=tuple(_remedies(case)),
    )


def _cuts(case: Case) -> tuple[int, float, str] | None:
    """The first step at which controllers lowered the rate, what is left of it, and their names; None if over half."""
    factors: dict[str, float] = {}
    first = 0
    for taken in case.history.decisions:
        decision = taken.decision
        if isinstance(decision, Adjust) and decision.name == "learning_rate" and taken.outcome == "taken":
            first = first or taken.step
            factors[taken.controller] = decision.value
    left = math.prod(factors.values())
    return (first, left, " and ".join(sorted(factors))) if left < 0.5 else None


def _without_cuts(case: Case) -> Iterator[Remedy]:
    patience = case.setting("control.learning_rate.patience")
    if case.target == "trimtab" and isinstance(patience, int):
        config = {"control.learning_rate.patience": 3 * patience}
        yield Remedy("lower the learning rate later: three times the patience", case.target, config)
    yield Remedy("leave the learning rate to its schedule")


def _remedies(case: Case) -> Iterator[Remedy]:
    if case.target == "trimtab" and case.setting("model.name") == "decoder":
        dropout = case.setting("model.dropout.residual")
        if isinstance(dropout, int | float) and dropout > 0.1:
            config = {"model.dropout.residual": 0.0, "model.dropout.feed_forward": 0.0, "model.dropout.embedding": 0.0}
            yield Remedy("take the dropout out", case.target, config)
        layers, width = case.setting("model.num_layers"), case.setting("model.hidden_size")
        if isinstance(layers, int) and isinstance(width, int):
            layers, width = max(4, layers * 2), width * max(2, -(-64 // width))
            config = {"model.num_layers": layers, "model.hidden_size": width}
            rate, usual = learning_rate_in_use(case), float(f"{usual_rate(12 * layers * width**2, width):.1g}")
            if uses_adam(case) and rate is not None and rate > usual:  # a small one bears more
                slower = change(case, f"a larger model, at a learning rate of {usual:g}", learning_rate=usual)
                yield Remedy(slower.summary, case.target, {**config, **slower.config})
            yield Remedy("a larger model", case.target, config)
            return
    yield Remedy("a larger model, or less dropout, weight decay and smoothing")
