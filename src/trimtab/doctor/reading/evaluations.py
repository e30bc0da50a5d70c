"""Evaluations as the rules see them: how much one of them is off by chance."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.case import Case
from trimtab.doctor.reading.classes import classifies
from trimtab.doctor.reading.curves import NORMAL, Curve, resolution
from trimtab.doctor.reading.medians import median
from trimtab.doctor.reading.once import once


def noise_of_evaluations(values: NDArray[np.float64]) -> float:
    """Noise of one evaluation around a smooth curve, from second differences."""
    if len(values) < 4:
        return 0.0
    first = values[1:] - values[:-1]
    second = first[1:] - first[:-1]
    robust = NORMAL * median(np.abs(second))
    # A median of few values is often far too small; the mean square is not, but a bend makes it large.
    few = 0.8 * np.sqrt(np.mean(second**2)) if len(values) < 12 else 0.0
    return float(max(robust, few) / np.sqrt(6))


@once
def unchanged_since(case: Case) -> int | None:
    """The first of the last three evaluations or more that agree to the last digit over a fifth of the run, or None.

    Then no weight has changed. Digits must have been kept, and the rate must not have decayed to a tenth of its peak.
    """
    curve, rates = Curve.of(case.validation_loss()), Curve.of(case.history.get("learning_rate"))
    if curve is None or len(curve) < 4:
        return None
    last = float(curve.values[-1])
    differing = np.flatnonzero(curve.values != last)
    first = int(differing[-1]) + 1 if len(differing) else 0
    if len(curve) - first < 3 or abs(last - round(last, 4)) < 1e-7:
        return None
    begin = int(curve.steps[first])
    if curve.last_step - begin < 0.2 * case.planned_steps:
        return None
    if rates is not None and rates.level(begin, curve.last_step) < 0.1 * float(rates.values.max()):
        return None
    return begin


@once
def no_gradient_since(case: Case, curve: Curve) -> int | None:
    """The step from which on the whole gradient is exactly 0, where that is a fifth of the run and more, to its end."""
    norms = Curve.of(case.history.get("grad_norm"))
    if norms is None or norms.last_step < curve.last_step or norms.values[-1] != 0.0:
        return None
    alive = np.flatnonzero(norms.values > 0.0)
    since = int(norms.steps[alive[-1] + 1]) if len(alive) else norms.first_step
    return since if norms.last_step - since >= 0.2 * (curve.last_step - curve.first_step) else None


@once
def judged_texts(case: Case) -> float | None:
    """How many texts are judged in an evaluation, of a task with one answer to a text; None where that is not known."""
    if case.fact("task") in ("classification", "regression"):
        documents, tokens = case.number("validation", "documents"), case.number("validation", "tokens")
        most, length = case.setting("evaluation.max_tokens"), case.setting("data.sequence_length")
        if documents and tokens and isinstance(most, int) and isinstance(length, int):
            return min(documents, max(1.0, most // min(tokens / documents, length)))
        return documents
    return counted_answers(case) if case.fact("task") is None and classifies(case) else None


def judged_tokens(case: Case) -> float | None:
    """How many tokens are judged in an evaluation, of a task over tokens; None where that is not known."""
    tokens, most, task = case.number("validation", "tokens"), case.setting("evaluation.max_tokens"), case.fact("task")
    if tokens is None or task not in ("causal_lm", "masked_lm", "seq2seq", "token_classification"):
        return None
    judged = min(tokens, most) if isinstance(most, int) else tokens
    return judged * float(case.setting("task.mask_rate") or 0.15) if task == "masked_lm" else judged


def judged_answers(case: Case) -> float | None:
    """As `judged_texts`, and of tags as how many independent ones those count that are judged, as far as counting found
    it out: tags of one text are right together."""
    texts, answers = judged_texts(case), case.number("counting", "labels", "validation_answers")
    if texts is not None or answers is None:
        return texts
    tokens, judged = case.number("validation", "tokens"), judged_tokens(case)
    return answers if not tokens or judged is None else max(1.0, answers * judged / tokens)


def error_of_tokens(number: float) -> float:
    """Standard error of the mean loss of so many tokens, as a part of it."""
    return 1.8 / math.sqrt(max(number, 1.0))


def counted_answers(case: Case) -> float | None:
    """How many answers the validation accuracy is a share of, read off its values: the fewest of which all are whole
    parts; None where as many whole parts would come by chance.

    With 12 samples an accuracy is a twelfth, a sixth or a quarter, and never 0.4.
    """
    series = case.evaluated("validation/accuracy")
    if series is None:
        return None
    told = series.finite()[1]
    values = np.unique(told)
    if len(values) < FEWEST_SHARES or float(values.max()) > 1.0 or float(values.min()) < 0.0:
        return None
    inside = (told > 0.0) & (told < 1.0)
    draws = int(
        (inside & np.insert(np.diff(told) != 0.0, 0, True)).sum()
    )  # one that comes back to a value draws it anew
    values = told[inside]
    if draws < FEWEST_SHARES:
        return None
    off = max(0.5 * min(resolution(values), 0.01), 1e-6)  # one digit alone is of few answers, not of rounding
    for number in range(2, MOST_ANSWERS):
        if max(BY_CHANCE, 2.0 * off * number) ** draws * number > 0.05:
            continue
        parts = values * number
        if float(np.abs(parts - np.round(parts)).max()) <= off * number + 1e-9:
            return float(number)
    return None


FEWEST_SHARES: Final = 3
"""Different accuracies: two have a common measure too easily."""
MOST_ANSWERS: Final = 1_000
BY_CHANCE: Final = 0.1
"""How likely an accuracy of many answers is taken for a whole part of few, at least."""


FEW_TEXTS: Final = 30
"""With no more a validation set tells nothing of labels or of kinds: its figures are chance."""


def judges_by_chance(case: Case) -> bool:
    """Whether so few texts with one answer each are judged that their figures are chance."""
    texts = judged_texts(case)
    return texts is not None and texts <= FEW_TEXTS


def accuracy_rose(case: Case, accuracy: Curve, since: int) -> bool:
    """Whether the validation accuracy after the evaluation number `since` lies above the three around it by more than
    chance: by twice the error of two shares of so many texts, and by thrice the scatter of evaluations."""
    around, after = accuracy.values[max(0, since - 1) : since + 2], accuracy.values[since + 1 :]
    if len(after) < 2:
        return False
    after = after[len(after) // 2 :]
    begin, end = float(np.mean(around)), float(np.mean(after))
    scatter = noise_of_evaluations(accuracy.values) * math.sqrt(1 / len(around) + 1 / len(after))
    texts = judged_texts(case)
    chance = 2.0 * math.sqrt(2.0) * error_of_share(begin, texts) if texts is not None else 0.0
    return end - begin > max(0.002, 3.0 * scatter, chance)


def error_of_share(share: float, number: float) -> float:
    """Standard error of a share that was counted among so many."""
    return math.sqrt(max(share * (1.0 - share), 0.25 / max(number, 1.0)) / max(number, 1.0))


def learns_at_once(case: Case, training: Curve) -> bool:
    """Whether the training loss falls by a quarter and more, and half of that in the first quarter of the run, and in
    three passes over the data where they are known; in logs by epochs within two of them.

    What holds for many samples is learned before they come again; what holds for one sample alone only afterwards, and
    slowly (Arpit et al. 2017, arXiv 1706.05394).
    """
    begin, end = training.start, float(training.smoothed[-max(1, len(training) // 20) :].mean())
    half = np.flatnonzero(training.smoothed <= 0.5 * (begin + end))
    passes = 3.0 * len(training) / case.epochs() if case.epochs() > 0 else math.inf
    first = min(0.25 * len(training), 3.0 if case.counts_epochs else passes)
    return end < 0.75 * begin and len(half) > 0 and bool(half[0] < first)


def gained_nothing(case: Case, validation: Curve, training: Curve) -> bool:
    """Whether the validation loss never came below where training began; in logs by epochs, whose first training loss
    is of a model that has learned much, also never below where it began itself."""
    lowest = float(validation.values.min())
    if case.counts_epochs and lowest < 0.97 * float(validation.values[0]):
        return False
    seen = Curve.of(case.loss()) or training  # a slice is first judged when something was learned
    return lowest >= 0.97 * max(training.start, float(training.values[0]), seen.start)
