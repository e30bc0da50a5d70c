"""Losses that a model must come below to have learned anything."""

from __future__ import annotations

import math
from typing import Final

from trimtab.doctor.case import Case
from trimtab.doctor.reading.classes import usual_loss
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.once import once
from trimtab.runs.counted import counts_every_token

FIRST_STAND: Final = 0.5
"""Tokens for each parameter: with fewer a loss may stand at frequencies of single tokens for a while."""


FROM_SCRATCH: Final = 1e-3
"""A rate above that is of weights that are new: fine-tuning takes less, and low-rank updates as much at most."""
SAME, FALLS = 0.01, 0.05
"""Of the first evaluation: how far its answers may be better in the next, and how much less these must cost."""
FAR_TARGETS: Final = 0.5
"""Of all squares, that the farthest hundredth of the targets makes: a single batch may cost many times as much."""
GUESSED: Final = 2.0
"""Times the probability of a guess: first answers that are right less often know nothing."""


def are_weights_new(case: Case) -> bool:
    """Whether the rate in a log of another trainer is higher than models bear that were trained before, or hardly more
    of the first answers were right than guesses among as many classes as the first loss tells.

    Answers that cost as much, and are surer where they are right, are right more often (Jensen's inequality). Or the
    first evaluations get better by no answer: it is learned how frequent each is, which what was trained before knows.
    """
    rates, right = (Curve.of(case.history.get(name)) for name in ("learning_rate", "train/accuracy"))
    if rates is not None and float(rates.values.max()) > FROM_SCRATCH:
        return True
    loss = Curve.of(case.loss())
    if _learns_frequencies(case):
        return True
    if right is None or loss is None or right.first_step > max(1, loss.first_step) or not loss.from_start:
        return False
    return float(right.values[0]) < GUESSED * math.exp(-float(loss.values[0]))


def _learns_frequencies(case: Case) -> bool:
    """Whether as many of the first answers are right as of the next, though these cost far less."""
    right, loss = Curve.of(case.evaluated("validation/accuracy")), Curve.of(case.validation_loss())
    if right is None or loss is None or len(right) < 4 or len(right) != len(loss):
        return False
    same, falls = SAME * right.values[0], FALLS * loss.values[0]
    return bool(abs(right.values[1] - right.values[0]) <= same and loss.values[0] - loss.values[1] > falls)


def could_be_frequencies(case: Case, start: float, level: float) -> bool | None:
    """Whether a model that knows no more than how frequent answers are could cost `level`, being right as often as it
    is, if `start` is what a guess costs; None where the log does not tell how many answers are right.

    If not, it knows more, or began with knowledge.
    """
    accuracy = Curve.of(case.evaluated("validation/accuracy")) or Curve.of(case.history.get("train/accuracy"))
    return None if accuracy is None else 1.05 * usual_loss(accuracy.end, math.exp(min(start, 30.0))) >= level


@once
def uniform_loss(case: Case) -> float | None:
    """ln V: every token, or every class, equally probable; None for tasks whose loss has no such level."""
    task = case.fact("task")
    if task in (None, "causal_lm", "masked_lm", "seq2seq"):
        size = case.number("tokenizer", "vocabulary_size")
    elif case.setting("objective.name") in (None, "cross_entropy"):
        size = len(case.fact("targets", "classes") or ())
    else:
        size = None
    return math.log(size) if size is not None and size > 1 else None


def few_are_most(case: Case) -> bool:
    """Whether a few far targets of a regression are most of all squares, as where most others are equal."""
    far = 1.0 if case.fact("outliers") is None and "outliers" in case.facts else case.number("outliers", "share")
    return (far or 0.0) > FAR_TARGETS


def constant_loss(case: Case) -> float | None:
    """What always saying the mean costs, of a regression of ours by squared errors: targets are divided by their
    deviation. None where that is not known, or a few far targets are most of it."""
    known = case.fact("task") == "regression" and case.number("targets", "deviation") is not None
    squared = case.setting("objective.name") in (None, "mse")
    return 1.0 if known and squared and case.target == "trimtab" and not few_are_most(case) else None


def most_constant_loss(case: Case) -> float | None:
    """What always saying the mean costs at most, of a regression of ours by errors that weigh less than squares do:
    none is above half of the square and half of 1, which is 1 where targets are divided by their deviation."""
    known = case.fact("task") == "regression" and case.number("targets", "deviation") is not None
    lighter = case.setting("objective.name") in ("rmse", "mae", "huber", "log_cosh", "quantile")
    return 1.0 if known and lighter and case.target == "trimtab" else None


@once
def counted_loss(case: Case, yardstick: str) -> float | None:
    """What counting reaches on the validation text: `unigram` frequencies, or `bigram` counts."""
    bits, tokens, num_bytes = (
        case.number("yardsticks", yardstick),
        case.number("yardsticks", "judged_tokens"),
        case.number("yardsticks", "judged_bytes"),
    )
    if bits is None or not tokens or not num_bytes:
        return None
    return bits * math.log(2) * num_bytes / tokens


def judged(case: Case) -> Curve | None:
    """The loss to hold against these levels: in evaluation, else in training where nothing is added to it."""
    curve = Curve.of(case.validation_loss())
    if curve is not None and len(curve) >= 2:
        return curve
    added = any(case.setting(f"objective.{one}") for one in ("label_smoothing", "z_loss", "distillation.teacher"))
    return None if added else Curve.of(case.loss())


def tokens_seen(case: Case) -> float | None:
    """Tokens that the run was trained on, of all its steps; None where that is not known."""
    series = case.history.get("tokens")
    if series is not None and counts_every_token(case.facts):
        return float(series.columns.total.sum())
    per_step = case.number("tokens_per_step")
    return None if per_step is None else per_step * case.history.last_step


def is_first_stand(case: Case, lowest: float) -> bool:
    """Whether the loss stands at frequencies of single tokens after less than half a token for each parameter.

    Language models stand there for a while before they learn more, so that no limit of the model is seen in it.
    """
    tokens, parameters, unigram = tokens_seen(case), case.number("parameters", "total"), counted_loss(case, "unigram")
    if tokens is None or not parameters or unigram is None:
        return False
    return tokens / parameters < FIRST_STAND and abs(lowest - unigram) < 0.05 * unigram
