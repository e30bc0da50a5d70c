"""random-labels: no label has to do with its input.

Looks for: a validation loss that never comes below what is known without any input (the entropy of the classes' shares;
    the loss of single tokens), and answers no better than always saying the most frequent class, while the training
    loss falls far, as samples are learned by heart, and not at once. Where the training loss stands still, too, only if
    counting runs of tokens, the nearest of rows of one length, or words of tags, tells nothing of the labels either
    (`counting.labels`). In logs answers that are no better than chance from the first evaluation to the last, near what
    guessing costs, while the training loss falls below, and not within three passes over the data; where that stands,
    too, it is less sure, and a remark of two classes. Of a regression of ours, three passes in which nothing is
    explained, unless the nearest rows tell of it (`counting.near`). Of pairs of texts, second texts that go with any
    first one as well as with their own (`counting.related`).
Why it matters: there is nothing to learn. Labels were shuffled against their inputs, a join went wrong, or a column is
    not what it seems.
Evidence: the best validation loss beside that of no input, the best accuracy beside the largest class, what counting
    tells, and how far the training loss fell.
Remedy: look at ten samples with their labels; find the step after which the two no longer belong together.
False alarms: a validation set of another kind or a few memorized texts look alike: there the validation loss first
    falls, if only from the shares of the classes. A rate far too low, or frozen parameters, leave the training loss
    where it was, and the same share of answers right in half of the evaluations. Of a log that does not say what it is
    of nothing is said without an accuracy, and nothing of thirty validation texts or fewer.
Source: Zhang et al. 2017, arXiv 1611.03530: networks learn random labels by heart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy, Withheld
from trimtab.doctor.reading.blind import blind_answers, falls_below, hardly_moves, is_learned_by_heart, of_two_kinds
from trimtab.doctor.reading.classes import LANGUAGE, classifies, prior_loss, shares
from trimtab.doctor.reading.counted import lucky, tells_much, tells_nothing
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.evaluations import (
    FEW_TEXTS,
    error_of_share,
    judged_answers,
    judges_by_chance,
    learns_at_once,
)
from trimtab.doctor.reading.levels import counted_loss
from trimtab.doctor.reading.unexplained import unexplained
from trimtab.runs import format

CODE: Final = "random-labels"
NEAR: Final = 0.985
"""Of the loss without input: a validation loss above that has gained nothing from it."""
UNEVEN: Final = 0.9
"""Of all texts: where one class has more, always saying it is hard to pass."""
REMEDIES: Final = (
    Remedy("look at ten samples with their labels, as the model gets them"),
    Remedy("find where inputs and labels are joined, sorted or shuffled apart from each other"),
)
RELATED: Final = 2.0
"""Standard errors: pairs that go together come to ten and more with some hundred of them."""
SCATTER: Final = 0.5
"""Nats, from text to text, of a loss that knows the classes' shares alone."""
NOTHING: Final = "labels have nothing to do with their inputs: nothing carries over to validation samples"
GUESSES: Final = "answers are guesses to the end: labels do not belong to their inputs, or these do not reach the model"


def check(case: Case) -> Iterator[Finding | Withheld]:
    """A warning; a remark where both losses of a log of two classes stand at what guessing costs."""
    if case.fact("task") == "seq2seq":
        yield from _unrelated(case)
        return
    validation = Curve.of(case.validation_loss())
    training = Curve.of(case.evaluated("training_slice/loss")) or Curve.of(case.loss())
    if validation is None or training is None or len(validation) < 3:
        return
    if case.history.last_step < 0.4 * case.planned_steps:
        return
    if case.fact("counting", "labels") is None and classifies(case):  # which tells more
        said = list(_of_a_log(case, validation, training))
        yield from said
        if said:
            return
    if case.fact("task") == "regression":
        yield from _of_numbers(case, validation, training)
    elif (blind := _blind(case)) is not None:
        yield from _of_facts(case, validation, training, blind)


def _of_a_log(case: Case, validation: Curve, training: Curve) -> Iterator[Finding | Withheld]:
    """Where no text was counted: answers that are guesses to the end, and a training loss that falls all the same."""
    blind = blind_answers(case, validation)
    if blind is None or learns_at_once(case, training):
        return
    if judges_by_chance(case):
        yield Withheld(CODE, (f"an accuracy on more than {FEW_TEXTS} validation texts",))
        return
    by_heart = falls_below(training, blind.last)
    if by_heart is None and (not blind.stand or hardly_moves(case)):
        return
    told = (
        f"the validation loss was {format.decimal(blind.first)} at the first evaluation, "
        f"{format.decimal(blind.lowest)} at best, and guessing costs {format.decimal(blind.level)}"
    )
    evidence = [
        Evidence("validation/loss", (validation.first_step, validation.last_step), blind.lowest, blind.level, told),
        Evidence("validation/accuracy", blind.steps, blind.right, blind.chance, blind.in_words),
    ]
    if by_heart is not None:
        evidence.append(_learned_by_heart(training, by_heart, blind.last))
        sure, cause = 0.7, NOTHING
    else:
        sure = 0.5 if blind.chance > 0.4 else 0.6  # of two classes a weak relation looks the same
        cause = GUESSES
    yield Finding(CODE, "warning" if sure > 0.5 else "info", sure, 1, cause, tuple(evidence), remedies=REMEDIES)


def _of_facts(case: Case, validation: Curve, training: Curve, blind: float) -> Iterator[Finding | Withheld]:
    """Where it is known what a model costs that sees no input."""
    counting = case.fact("counting", "labels")
    nothing = tells_nothing(counting)
    # Of few texts the loss is off by chance; where counting tells nothing either, that is no sign of learning.
    chance = 2.5 * SCATTER / math.sqrt(judged_answers(case) or math.inf) if nothing else 0.0
    lowest = float(validation.values.min())
    if lowest < NEAR * blind - chance:
        return
    accuracy, largest = Curve.of(case.evaluated("validation/accuracy")), max(shares(case), default=None)
    if largest is not None and largest > UNEVEN:
        return  # hardly any text could show otherwise
    if accuracy is not None and largest is not None:
        number = judged_answers(case) or 100.0
        if float(accuracy.values.max()) > largest + lucky(counting) * error_of_share(largest, number):
            return
    by_heart = is_learned_by_heart(training, blind)
    if of_two_kinds(case) and not nothing:
        return
    if (nothing is False and not by_heart) or tells_much(counting):
        return
    if not by_heart and (nothing is None or hardly_moves(case)):
        return
    if judges_by_chance(case):
        yield Withheld(CODE, (f"an accuracy on more than {FEW_TEXTS} validation texts",))
        return
    evidence = [_not_below(validation, lowest, blind)]
    if accuracy is not None and largest is not None:
        told = (
            f"the validation accuracy is {accuracy.values.max():.1%} at best; the most frequent class has {largest:.1%}"
        )
        steps = (accuracy.first_step, accuracy.last_step)
        evidence.append(Evidence("validation/accuracy", steps, float(accuracy.values.max()), largest, told))
    if nothing:
        told = (
            f"counting by {counting.get('by', 'runs of tokens')} tells {counting['accuracy']:.1%} of the training "
            f"labels right, and the most frequent class is {counting['majority']:.1%}"
        )
        evidence.append(Evidence("facts.counting.labels", (0, 0), counting["accuracy"], counting["majority"], told))
    if by_heart:
        evidence.append(_learned_by_heart(training, training.end, blind))
    yield Finding(
        CODE,
        "warning",
        0.93 if by_heart and nothing else 0.8 if by_heart else 0.75,
        1,
        NOTHING,
        tuple(evidence),
        remedies=REMEDIES,
    )


def _of_numbers(case: Case, validation: Curve, training: Curve) -> Iterator[Finding | Withheld]:
    """Of a regression: nothing of its validation targets is explained."""
    if (found := unexplained(case, validation, training)) is None:
        return
    if judges_by_chance(case):
        yield Withheld(CODE, (f"an accuracy on more than {FEW_TEXTS} validation texts",))
        return
    evidence = [_not_below(validation, float(validation.values.min()), found.blind)]
    if found.by_heart:
        evidence.append(_learned_by_heart(training, training.end, found.blind))
    sure, cause = (0.8, NOTHING) if found.by_heart else (0.6, GUESSES)
    yield Finding(CODE, "warning", sure, 1, cause, tuple(evidence), remedies=REMEDIES)


def _not_below(validation: Curve, lowest: float, blind: float) -> Evidence:
    told = (
        f"the validation loss came to {format.decimal(lowest)} at best, and what is known without any input is "
        f"{format.decimal(blind)}"
    )
    return Evidence("validation/loss", (validation.first_step, validation.last_step), lowest, blind, told)


def _learned_by_heart(training: Curve, low: float, level: float) -> Evidence:
    told = f"the training loss fell to {format.decimal(low)} all the same: its samples are learned by heart"
    return Evidence("train/loss", (training.first_step, training.last_step), low, level, told)


def _unrelated(case: Case) -> Iterator[Finding]:
    """Second texts that go with any first text as well as with their own."""
    related, pairs = case.number("counting", "related"), case.number("training", "documents")
    accuracy = Curve.of(case.evaluated("validation/accuracy"))
    if related is None or related > RELATED or (accuracy is not None and float(accuracy.values.max()) > 0.6):
        return
    told = (
        f"what goes together in half of the {pairs or 0:,.0f} pairs tells nothing of the other half: second texts go "
        f"with their own first texts no better than those of others do ({related:+.1f} standard errors)"
    )
    yield Finding(
        CODE,
        "warning",
        0.75,
        1,
        "the texts that are asked for have nothing to do with those that are read",
        (Evidence("facts.counting.related", (0, 0), related, RELATED, told),),
        remedies=(
            Remedy("look at ten pairs, as the model gets them"),
            Remedy("find where first and second texts are joined, sorted or shuffled apart from each other"),
        ),
    )


def _blind(case: Case) -> float | None:
    """The loss of a model that sees no input, where that is known."""
    if (prior := prior_loss(case)) is not None and classifies(case):
        return prior
    task = case.fact("task")
    if task in LANGUAGE:
        unigram, bigram = counted_loss(case, "unigram"), counted_loss(case, "bigram")
        # In text tokens go with their neighbours; where pairs tell no more than single ones, it is none.
        return unigram if unigram is not None and bigram is not None and bigram > NEAR * unigram else None
    return None
