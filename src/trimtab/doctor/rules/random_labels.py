"""random-labels: no label has to do with its input.

Looks for: a validation loss that never comes below what is known without any input (the entropy of the classes'
    shares; the loss of single tokens; of a log that does not say, its own first value), and answers no better than
    always saying the most frequent class, while the training loss falls far, as samples are learned by heart, and not
    at once. Where the training loss stands still, too, it is found only if counting runs of tokens tells nothing of
    the labels either (the fact `counting.labels`), or if in a log with an accuracy both validation curves stand where
    they were at the first evaluation, near what guessing costs, while the training loss falls below. Of pairs of
    texts, second texts that go with any first one as well as with their own (the fact `counting.related`).
Why it matters: there is nothing to learn. Labels were shuffled against their inputs, a join went wrong, or a column is
    not what it seems.
Evidence: the best validation loss beside that of no input, the best accuracy beside the largest class, what counting
    tells, and how far the training loss fell.
Remedy: look at ten samples with their labels; find the step after which the two no longer belong together.
False alarms: a validation set of another kind or a few memorized texts look alike: there the validation loss first
    falls, if only from the shares of the classes. A rate far too low, or frozen parameters, leave the training loss
    where it was. Of a log that does not say what it is of nothing is said without an accuracy, and nothing of thirty
    validation texts or fewer.
Source: Zhang et al. 2017, arXiv 1611.03530: networks learn random labels by heart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy, Withheld
from trimtab.doctor.reading.classes import (
    LANGUAGE,
    classifies,
    knows_classes,
    num_classes,
    prior_loss,
    shares,
    usual_loss,
)
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.evaluations import (
    FEW_TEXTS,
    error_of_share,
    gained_nothing,
    judged_texts,
    judges_by_chance,
    learns_at_once,
    noise_of_evaluations,
)
from trimtab.doctor.reading.levels import counted_loss
from trimtab.runs import format

CODE: Final = "random-labels"
NEAR: Final = 0.985
"""Of the loss without input: a validation loss above that has gained nothing from it."""
UNEVEN: Final = 0.9
"""Of all texts: where one class has more, always saying it is hard to pass."""
STANDS: Final = 0.975
"""Of the first validation loss: one that never came below has gained nothing since."""
AT_MOST: Final = 2.0
"""Times an even share: an accuracy that a most frequent class may have by itself."""
REMEDIES: Final = (
    Remedy("look at ten samples with their labels, as the model gets them"),
    Remedy("find where inputs and labels are joined, sorted or shuffled apart from each other"),
)
RELATED: Final = 2.0
"""Standard errors: pairs that go together come to ten and more with some hundred of them."""
SURE: Final = 5.0
"""Errors by which an accuracy or a validation loss has improved, where something carries over."""
SCATTER: Final = 0.5
"""Nats, from text to text, of a loss that knows the classes' shares alone."""
MUCH: Final = 0.2
"""Of accuracy, above the most frequent class: labels that are told so have to do with their inputs."""
BY_HEART: Final = 0.75
"""Of that loss: training losses below are of samples learned by heart."""


def check(case: Case) -> Iterator[Finding | Withheld]:
    """A warning."""
    if case.fact("task") == "seq2seq":
        yield from _unrelated(case)
        return
    validation = Curve.of(case.validation_loss())
    training = Curve.of(case.evaluated("training_slice/loss")) or Curve.of(case.loss())
    if (
        validation is None
        or training is None
        or len(validation) < 3
        or case.history.last_step < 0.4 * case.planned_steps
    ):
        return
    if (stands := _stands(case, validation, training)) is not None:
        yield stands
        return
    blind, known = _blind(case, validation)
    counting = case.fact("counting", "labels")
    tells_nothing = _tells_nothing(counting)
    # Of few texts the loss is off by chance; where counting tells nothing either, that is no sign of learning.
    chance = 2.5 * SCATTER / math.sqrt(judged_texts(case) or math.inf) if tells_nothing else 0.0
    if blind is None or float(validation.values.min()) < (NEAR if known else 0.97) * blind - chance:
        return
    accuracy, largest = Curve.of(case.evaluated("validation/accuracy")), max(shares(case), default=None)
    if largest is not None and largest > UNEVEN:
        return  # hardly any text could show otherwise
    if accuracy is not None and largest is not None:
        number = judged_texts(case) or 100.0
        best = float(accuracy.values.max())
        # The best of several evaluations is lucky.
        if best > largest + 3.5 * error_of_share(largest, number):
            return
    by_heart = min(float(training.smoothed.min()), training.end) < BY_HEART * blind
    if (tells_nothing is False and not by_heart) or _tells_much(counting):
        return
    if not by_heart and (tells_nothing is None or _stands_for_another_reason(case)):
        return
    if not known and (not by_heart or not classifies(case) or not gained_nothing(case, validation, training)):
        return
    if not known and accuracy is None and not case.history.has("train/accuracy"):
        return  # any loss above 1.4 is near ln K of some K: nothing says that there are classes
    if not known and (learns_at_once(case, training) or _carries_over(case, accuracy)):
        return  # it is learned, but not asked: a validation set of another kind
    if judges_by_chance(case):
        yield Withheld(CODE, (f"an accuracy on more than {FEW_TEXTS} validation texts",))
        return
    lowest = float(validation.values.min())
    what = "what is known without any input" if known else "where it began"
    evidence = [
        Evidence(
            "validation/loss",
            (validation.first_step, validation.last_step),
            lowest,
            blind,
            f"the validation loss came to {format.decimal(lowest)} at best, and {what} is {format.decimal(blind)}",
        )
    ]
    if accuracy is not None and largest is not None:
        told = (
            f"the validation accuracy is {accuracy.values.max():.1%} at best; the most frequent class has {largest:.1%}"
        )
        steps = (accuracy.first_step, accuracy.last_step)
        evidence.append(Evidence("validation/accuracy", steps, float(accuracy.values.max()), largest, told))
    if tells_nothing:
        told = (
            f"counting runs of tokens tells {counting['accuracy']:.1%} of the training labels right, and the most "
            f"frequent class is {counting['majority']:.1%}"
        )
        evidence.append(Evidence("facts.counting.labels", (0, 0), counting["accuracy"], counting["majority"], told))
    if by_heart:
        told = (
            f"the training loss fell to {format.decimal(training.end)} all the same: its samples are learned by heart"
        )
        evidence.append(Evidence("train/loss", (training.first_step, training.last_step), training.end, blind, told))
    yield Finding(
        CODE,
        "warning",
        0.93 if by_heart and tells_nothing else 0.8 if by_heart and known else 0.75 if tells_nothing else 0.6,
        1,
        "labels have nothing to do with their inputs: nothing carries over to validation samples",
        tuple(evidence),
        remedies=REMEDIES,
    )


def _carries_over(case: Case, accuracy: Curve | None) -> bool:
    """Whether answers became better by far more than chance, and bit by bit, as no share of a class comes about."""
    if accuracy is None or len(accuracy) < 5:
        return False
    first, texts = float(accuracy.values[:2].mean()), judged_texts(case) or 300.0
    later = accuracy.values[len(accuracy) // 2 :]
    error = max(noise_of_evaluations(accuracy.values), error_of_share(first, texts))
    by_and_by = int((np.diff(accuracy.values) > 0).sum()) >= 3
    return by_and_by and float(np.median(later)) - first > SURE * error


def _stands(case: Case, validation: Curve, training: Curve) -> Finding | None:
    """Where no text was counted, as in logs: whether nothing that is learned carries over."""
    accuracy, number = Curve.of(case.evaluated("validation/accuracy")), num_classes(case)
    if accuracy is None or number is None or not classifies(case) or judges_by_chance(case):
        return None
    if case.fact("counting", "labels") is not None:
        return None  # which tells more
    begins = int(validation.steps[0]) <= 0.25 * case.planned_steps and len(validation) >= 5 and len(accuracy) >= 5
    if not begins or learns_at_once(case, training):
        return None
    lowest, last = float(validation.values.min()), float(np.median(validation.values[-max(2, len(validation) // 4) :]))
    if float(validation.values[0]) - last > SURE * noise_of_evaluations(validation.values):
        return None  # it moves little, and by far more than chance: what is learned by heart makes it no better
    guess, half = prior_loss(case) or float(np.log(number)), len(accuracy) // 2
    most = max(shares(case), default=max(AT_MOST / number, 1.0 / number + 0.15 if number < 3 else 0.0))
    before, after = accuracy.values[:2], accuracy.values[half:]
    always = float(np.ptp(accuracy.values)) < 0.01  # then it is the share of the class that is always said
    best = float(np.median(after))
    # The training loss lies below in the last quarter, and lies lower there than in the second.
    ends = training.between(training.steps[-max(1, len(training) // 4)], training.last_step)
    second = training.between(
        training.steps[len(training) // 4], training.steps[max(len(training) // 4, len(training) // 2 - 1)]
    )
    assert ends is not None
    assert second is not None
    low, middle = float(np.mean(ends.values)), float(np.mean(second.values))
    error = float(np.std(ends.values)) / float(np.sqrt(len(ends)))
    if (
        lowest < STANDS * float(validation.values[0])
        or lowest < (0.8 * usual_loss(best, number) if always else 0.9 * guess)
        or best > 0.9
        or (not always and best > most + 2.0 * error_of_share(most, judged_texts(case) or 300.0))
        or best > float(before.max()) + max(0.02, 2.0 * noise_of_evaluations(accuracy.values))
        or low > last - max(3.0 * error, 0.005 * last)
        or low > middle - error
    ):
        return None
    told = (
        f"the validation loss was {format.decimal(float(validation.values[0]))} at the first evaluation, "
        f"{format.decimal(lowest)} at best, and guessing costs {format.decimal(guess)}"
    )
    shown = f"the validation accuracy was {before.max():.1%} at first and is {best:.1%} in the second half"
    fell = f"the training loss fell to {format.decimal(low)} all the same: its samples are learned by heart"
    return Finding(
        CODE,
        "warning",
        0.7,
        1,
        "labels have nothing to do with their inputs: nothing carries over to validation samples",
        (
            Evidence("validation/loss", (validation.first_step, validation.last_step), lowest, guess, told),
            Evidence("validation/accuracy", (accuracy.first_step, accuracy.last_step), best, 1.0 / number, shown),
            Evidence("train/loss", (ends.first_step, ends.last_step), low, last, fell),
        ),
        remedies=REMEDIES,
    )


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


def _blind(case: Case, validation: Curve) -> tuple[float | None, bool]:
    """The loss of a model that sees no input, and whether it is known and not taken from the curve."""
    if (prior := prior_loss(case)) is not None and classifies(case):
        return prior, True
    task = case.fact("task")
    if task in LANGUAGE:
        unigram, bigram = counted_loss(case, "unigram"), counted_loss(case, "bigram")
        # In text tokens go with their neighbours; where pairs tell no more than single ones, it is none.
        return (
            (unigram, True) if unigram is not None and bigram is not None and bigram > NEAR * unigram else (None, True)
        )
    if task == "regression":
        explained = Curve.of(case.evaluated("validation/r2"))
        is_squared = case.setting("objective.name") in (None, "mse")
        no_better = explained is not None and float(explained.values.max()) < 0.02
        return (1.0, True) if no_better and is_squared else (None, True)
    number = num_classes(case)
    if number is None:
        return None, False
    start = float(validation.values[0])
    return min(start, float(np.log(number))) if knows_classes(case) else start, False


def _tells_nothing(counting: object) -> bool | None:
    """Whether counting finds no relation of text and label; None where nothing was counted."""
    if not isinstance(counting, dict):
        return None
    majority, texts = float(counting["majority"]), float(counting["texts"])
    held_out = float(counting["validation_accuracy"]), max(float(counting["validation_texts"]), 1.0)
    surest, quarter = float(counting["sure_errors"][0]), max(texts // 4, 1.0)
    return (
        float(counting["accuracy"]) < majority + 3.0 * error_of_share(majority, texts)
        and held_out[0] < majority + 3.0 * error_of_share(majority, held_out[1])
        # Where one class is most of all, being sure of it at the right places is all that can be told.
        and surest > 1.0 - majority - 3.0 * error_of_share(majority, quarter)
    )


def _tells_much(counting: object) -> bool:
    """Whether counting tells far more of the training labels than the share of the most frequent class."""
    return isinstance(counting, dict) and float(counting["accuracy"]) > float(counting["majority"]) + MUCH


def _stands_for_another_reason(case: Case) -> bool:
    """Whether hardly anything was changed: rates are 0, or gradients are."""
    norms, rates = Curve.of(case.history.get("grad_norm")), Curve.of(case.history.get("learning_rate"))
    still = norms is not None and float(np.median(norms.values)) < 1e-6
    return still or rates is None or float(rates.values.max()) < 1e-5 or (case.number("parameters", "frozen") or 0) > 0
