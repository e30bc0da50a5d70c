"""Mistakes in the data."""

from __future__ import annotations

import random
from typing import Final

from own_examiner.case import CLASSES, LANGUAGE, Case
from own_examiner.plant import Plant, better, collapsed, explains_less, far_better, overfits, scatters, spikes

ROWS: Final = (*CLASSES, "numbers")


def wrong_labels(rng: random.Random, case: Case, strong: bool) -> Case:
    """Careless annotators, whose labels the validation set has as well, or has not."""
    part = rng.uniform(0.4, 0.5) if strong else rng.uniform(0.25, 0.35)
    return case.with_data(**{rng.choice(("wrong_labels", "wrong_labels_everywhere")): round(part, 2)})


def shuffled(rng: random.Random, case: Case, strong: bool) -> Case:
    """Targets joined to the wrong rows."""
    return case.with_data(shuffled_targets=rng.choice(("both", "training")))


def swamped(rng: random.Random, case: Case, strong: bool) -> Case:
    """Classes that hardly occur, and a rate at which they are never learned."""
    return case.with_data(imbalance=0.02 if strong else 0.04).at_rate(0.2)


def in_order(rng: random.Random, case: Case, strong: bool) -> Case:
    """Rows sorted by their target, and no shuffling."""
    return case.with_data(sorted=True).but(data__shuffle=False)


def unshuffled(rng: random.Random, case: Case) -> Case:
    """Rows in a random order of the file, taken as they come; one pass."""
    case = case.but(data__shuffle=False)
    if case.kind in LANGUAGE:
        return case
    return case.with_data(rows=case.settings["training.micro_batch_size"] * case.steps)


def corrupt(rng: random.Random, case: Case, strong: bool) -> Case:
    """A torn piece of the file."""
    batch = case.settings["training.micro_batch_size"]
    if case.kind in LANGUAGE:
        return case.with_data(corrupt=(100, 3 if strong else 2))
    at = torn_step(case)
    assert at is not None
    return case.with_data(corrupt=(batch * at, batch * (2 if strong else 1)))


def torn_step(case: Case) -> int | None:
    """The step before that of the torn rows, where rows are batches; of texts it is not known."""
    return None if case.kind in LANGUAGE else case.steps * 6 // 10


def outliers(rng: random.Random, case: Case, strong: bool) -> Case:
    """Targets of which some were written in another unit."""
    return case.with_data(outliers=(0.01, 200 if strong else 40)).but(objective={"name": "mse"})


def few_rows(rng: random.Random, case: Case) -> Case:
    """So few rows, seen so often, that a leak counts."""
    if case.kind in LANGUAGE:
        return case.with_data(characters=120_000)
    return case.with_data(rows=1000).but(training__steps=max(300, case.steps))


def leaked(rng: random.Random, case: Case, strong: bool) -> Case:
    """Validation rows that are in the training set."""
    return case.with_data(leaked=(1.0 if strong else 0.6, 1))


def hard(rng: random.Random, case: Case) -> Case:
    """A question that cannot be answered well."""
    return case.with_data(noise=2.0, pixel_noise=9)


def answer_in_text(rng: random.Random, case: Case, strong: bool) -> Case:
    """The answer is among what is read."""
    return case.with_data(target_in_text=True)


def shifted(rng: random.Random, case: Case, strong: bool) -> Case:
    """Validation data of another kind."""
    return case.with_data(shifted_validation="mpmath")


def restless(rng: random.Random, case: Case) -> Case:
    """A question that cannot be answered well, at a high rate, judged often."""
    case = hard(rng, case).at_rate(2.0)
    return case.but(evaluation__every=max(10, case.steps // 20), schedule={"name": "constant", "warmup": 0.05})


def few_judged(rng: random.Random, case: Case, strong: bool) -> Case:
    """Validation by a handful of rows."""
    return case.with_data(validation_rows=rng.randint(4, 8) if strong else rng.randint(9, 14))


def by_heart(rng: random.Random, case: Case, strong: bool) -> Case:
    """Few rows, many passes, nothing against it."""
    rows = {"packages": 300, "digits": 120, "numbers": 100}[case.kind]
    case = case.with_data(rows=rows // 2 if strong else rows)
    case = case.but(training__steps=max(450, case.steps), training__micro_batch_size=16)
    if case.kind == "packages" and case.module is None and "model" not in case.settings:
        case = case.but(model__dropout__residual=0.0)
    return case.at_rate(2.0)


PLANTS: Final = (
    Plant("wrong-labels", "label-noise", CLASSES, wrong_labels),
    Plant("wrong-labels-2", "label-noise", CLASSES, wrong_labels),
    Plant("wrong-join", "random-labels", (*ROWS, "words"), shuffled),
    Plant("wrong-join-classes", "random-labels", CLASSES, shuffled),
    Plant("swamped", "class-collapse", CLASSES, swamped, harm=collapsed, has_twin=False,
          also=("learning-rate-too-low",)),
    Plant("sorted-rows", "unshuffled-data", ROWS, in_order),
    Plant("sorted-classes", "unshuffled-data", CLASSES, in_order),
    Plant("torn-file", "corrupt-batch", ("numbers", "packages"), corrupt, harm=spikes, prepare=unshuffled,
          onset=torn_step),
    Plant("torn-text", "corrupt-batch", LANGUAGE, corrupt, harm=spikes, prepare=unshuffled),
    Plant("other-unit", "outlier-dominated-loss", ("numbers",), outliers, harm=explains_less),
    Plant("leaked-rows", "leakage", ("packages", "digits", *LANGUAGE), leaked, harm=better, prepare=few_rows),
    Plant("leaked-text", "leakage", LANGUAGE, leaked, harm=better, prepare=few_rows),
    Plant("answer-in-text", "target-leak", ("digits", "numbers"), answer_in_text, harm=far_better, prepare=hard),
    Plant("answer-in-classes", "target-leak", ("packages",), answer_in_text, harm=far_better),
    Plant("other-validation", "validation-shift", (*LANGUAGE, "packages", "digits", "numbers"), shifted),
    Plant("other-validation-rows", "validation-shift", ROWS, shifted),
    Plant("few-judged", "validation-too-small", ROWS, few_judged, harm=scatters, prepare=restless),
    Plant("few-judged-classes", "validation-too-small", CLASSES, few_judged, harm=scatters, prepare=restless),
    Plant("by-heart", "overfitting", CLASSES, by_heart, harm=overfits, prepare=hard, has_twin=False),
    Plant("by-heart-rows", "overfitting", ROWS, by_heart, harm=overfits, prepare=hard, has_twin=False),
)  # fmt: skip
