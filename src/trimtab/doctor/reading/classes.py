"""What is known of the classes of a task: how many, what guessing costs, and how good always saying one of them is."""

from __future__ import annotations

import math
from typing import Final

from trimtab.doctor.case import Case
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.once import once
from trimtab.runs.unnamed_losses import SEVERAL

LANGUAGE: Final = ("causal_lm", "masked_lm", "seq2seq")
_NEAR_LEVEL: Final = 0.12
_MOST_CLASSES: Final = 150.0
"""Of a log that does not say what it is of: a loss that begins higher is taken for that of a language model."""


def classifies(case: Case) -> bool:
    """Whether the run is one of few classes, as far as is known: by its task, or by the loss that it begins with."""
    task = case.fact("task")
    if task is not None:
        return task in ("classification", "token_classification") and not case.setting("task.multi_label")
    number = num_classes(case)
    return number is not None and number <= _MOST_CLASSES


@once
def num_classes(case: Case) -> float | None:
    """Classes, or tokens of the vocabulary; of a log that does not say, as its first loss tells, if that is near ln K
    of a whole number."""
    if classes := case.fact("targets", "classes"):
        return float(len(classes))
    task = case.fact("task")
    if task in LANGUAGE or (task is None and case.fact("tokenizer", "vocabulary_size") is not None):
        return case.number("tokenizer", "vocabulary_size")
    if task in ("regression", SEVERAL):
        return None
    if (known := case.number("num_classes")) is not None:
        return known
    curve = Curve.of(case.loss())
    if curve is None or not 0.6 < curve.values[0] < 14.0:
        return None
    guess = max(2.0, float(round(math.exp(float(curve.values[0])))))
    return guess if abs(math.log(guess) - float(curve.values[0])) < _NEAR_LEVEL else None


def shares(case: Case) -> list[float]:
    """The part of the training targets that each class has; empty where that is not known."""
    counts = case.fact("targets", "counts") or []
    total = sum(counts)
    return [count / total for count in counts] if total else []


def prior_loss(case: Case) -> float | None:
    """What a model that knows how frequent classes are, and nothing else, costs."""
    known = shares(case)
    return -sum(share * math.log(share) for share in known if share > 0) if known else None


def usual_loss(accuracy: float, number: float) -> float:
    """The loss of a model whose answers are right with a probability of `accuracy`, and that knows it."""
    wrong = min(max(1.0 - accuracy, 1e-9), 1.0 - 1e-9)
    entropy = -wrong * math.log(wrong) - (1.0 - wrong) * math.log(1.0 - wrong)
    return entropy + wrong * math.log(max(number - 1.0, 1.0))
