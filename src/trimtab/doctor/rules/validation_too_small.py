"""validation-too-small: the validation loss is too noisy to choose by.

Looks for: so few validation samples that the figure itself is uncertain: at most thirty texts with one answer each, or
    three hundred tokens. In a log the values of the accuracy tell how many: all are multiples of one over that number.
    In the curves: a validation loss that jumps from evaluation to evaluation by a good part of all that it gained,
    while the training loss between them scatters by little more than single batches do.
Why it matters: the best checkpoint, patience and every comparison are then chosen by luck. Of thirty texts an accuracy
    of 80 % is one of 62 to 91 %.
Evidence: how many samples there are, the interval of the last figure, and how much evaluations scatter.
Remedy: hold out more (`data.validation_fraction`), or judge more of it (`evaluation.max_tokens`).
False alarms: a rate that is too high makes the training loss jump, too, and the model with it. Dropout that is active
    in evaluation looks the same in a log; what is learned by heart makes the loss jump, too, and is not held against
    it. A loss that ends far above its best is overfitting, however it scatters.
Source: own; intervals of shares after Wilson 1927.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.classes import num_classes
from trimtab.doctor.reading.curves import Curve, noise_of, resolution
from trimtab.doctor.reading.evaluations import (
    FEW_TEXTS,
    error_of_share,
    error_of_tokens,
    judged_texts,
    judged_tokens,
    noise_of_evaluations,
)
from trimtab.doctor.reading.medians import median
from trimtab.runs import format

CODE: Final = "validation-too-small"
FEW_TOKENS: Final = 300
"""Their mean loss is uncertain by a tenth; up to ten times as many it is a remark."""
MANY_TOKENS: Final = 10_000
EACH: Final = 2.0
"""Answers for each class, at least."""
BY_HEART: Final = 0.2
"""Of the validation loss: a training loss below that is of samples learned by heart."""
TIMES: Final = 5.0
"""What the training loss scatters by beyond the chance of its batches, and half of it with that."""
JUMPS: Final = 0.1
"""Of all that the validation loss gained: evaluations that scatter so much choose by chance."""


def check(case: Case) -> Iterator[Finding]:
    """A warning; a remark on up to three times as many texts, and ten times as many tokens."""
    validation = Curve.of(case.validation_loss())
    if validation is None or len(validation) < 2:
        return
    evidence = [*_few(case)]
    few = bool(evidence)
    very_few = few and (evidence[0].observed or 0.0) <= (evidence[0].expected or 0.0)
    jumps = [*_jumps(case, validation)]
    if not few and (not jumps or _is_known_to_be_large(case)):
        return
    fraction, most = case.setting("data.validation_fraction"), case.setting("evaluation.max_tokens")
    ours = case.target == "trimtab"
    held_out = case.number("validation", "tokens") or math.inf
    in_part = isinstance(most, int) and most <= 10 * FEW_TOKENS and most < held_out
    more = (
        ours
        and not in_part
        and isinstance(fraction, float)
        and fraction < 0.2
        and case.setting("data.validation_source.name") is None
    )
    yield Finding(
        CODE,
        "warning" if very_few or (jumps and not _rises(validation)) else "info",
        0.9 if very_few else 0.7 if few or _only_there(jumps[0]) else 0.6,
        1,
        "the validation set is so small that its figures are chance"
        if few
        else "evaluations scatter by a good part of what was gained: what is judged is too little",
        (*evidence, *jumps),
        remedies=(
            *([Remedy("hold out a fifth", "trimtab", {"data.validation_fraction": 0.2})] if more else []),
            *(
                [Remedy("judge more of the validation text", "trimtab", {"evaluation.max_tokens": None})]
                if ours and in_part
                else []
            ),
            Remedy("hold out more validation samples, or compare by cross-validation"),
        ),
    )


def _few(case: Case) -> Iterator[Evidence]:
    texts = judged_texts(case)
    if texts is not None:
        known = case.fact("task") is not None
        least = float(FEW_TEXTS) if known else max(FEW_TEXTS, EACH * (num_classes(case) or 0.0))
        if texts > max(least, 3 * FEW_TEXTS):
            return
        told = f"{format.count(texts)} {'texts' if known else 'answers'} are judged"
        if not known:
            told += f", as all accuracies are multiples of 1/{texts:.0f}"
        accuracy = Curve.of(case.evaluated("validation/accuracy"))
        if accuracy is not None:
            level = float(accuracy.values[-1])
            told += f": an accuracy of {level:.0%} is uncertain by ±{1.96 * error_of_share(level, texts):.0%}"
        metric = "facts.validation.documents" if known else "validation/accuracy"
        yield Evidence(metric, (0, 0), texts, least, told)
        return
    judged = judged_tokens(case)
    if judged is not None and judged <= 10 * FEW_TOKENS:
        error = error_of_tokens(judged)
        told = f"{format.count(int(judged))} tokens are judged: their mean is uncertain by about {error:.1%}"
        yield Evidence("facts.validation.tokens", (0, 0), judged, FEW_TOKENS, told)


def _is_known_to_be_large(case: Case) -> bool:
    texts, tokens = judged_texts(case), case.number("validation", "tokens")
    return (texts is not None and texts > 10 * FEW_TEXTS) or (
        texts is None and tokens is not None and tokens > MANY_TOKENS
    )


def _only_there(jumps: Evidence) -> bool:
    """Whether evaluations scatter by twice what is asked for: then no rate is too high that leaves training alone."""
    return (jumps.observed or 0.0) >= 2.0 * (jumps.expected or 0.0)


def _rises(validation: Curve) -> bool:
    """Whether it ends far above where it was best, by more than it scatters: that is no chance, and says more."""
    last, best = validation.values[-max(3, len(validation) // 4) :], median(np.sort(validation.values)[:3])
    return median(last) - best > 3.0 * noise_of_evaluations(validation.values)


def _jumps(case: Case, validation: Curve) -> Iterator[Evidence]:
    """Where evaluations scatter far more than the training loss between them."""
    on_slice = Curve.of(case.evaluated("training_slice/loss"))
    training = on_slice or Curve.of(case.loss())
    if training is None or len(validation) < 8 or len(training) < 8:
        return
    noise, gained = (
        min(noise_of_evaluations(validation.values), noise_of(validation.values)),  # the one of a bend, both of a spike
        float(validation.values[:2].max() - validation.values.min()),
    )
    if gained <= 0 or noise < max(JUMPS * gained, 0.02 * abs(validation.end), resolution(validation.values)):
        return
    half = len(validation) // 2
    if training.level(float(validation.steps[half]), training.last_step) < BY_HEART * median(validation.values[half:]):
        return  # a model that is sure of all it says moves the loss by a few wrong answers, however many are judged
    edges = np.concatenate([[training.first_step - 1], validation.steps])
    levels = [training.level(first + 1, last) for first, last in itertools.pairwise(edges.tolist())]
    beside = noise_of_evaluations(np.array([level for level in levels if math.isfinite(level)]))
    # Less what batches scatter by, which a slice has nothing of, it is of the weights.
    by_batches = 0.0 if on_slice is not None else training.error(max(1, len(training) // len(validation)))
    moves = math.sqrt(max(beside**2 - by_batches**2, 0.0))
    least = max(TIMES * moves, 0.5 * TIMES * beside, 0.02 * abs(validation.end), resolution(validation.values))
    if noise < max(JUMPS * gained, least) or gained <= 0:
        return
    told = (
        f"from one evaluation to the next the validation loss scatters by {format.decimal(noise)}, where it fell by "
        f"{format.decimal(gained)} in all and the training loss scatters by {format.decimal(beside)}"
    )
    yield Evidence("validation/loss", (validation.first_step, validation.last_step), noise, least, told)
