"""validation-shift: the validation data is of another kind.

Looks for: a gap between validation and training loss, both in eval mode, while no sample was seen twice: then training
    samples are as new to the model as validation samples, and only their kind can differ. Together with documents that
    counting runs of tokens tells apart (the fact `counting.sets.separability`: 0.5 where both are of one kind). In logs
    without these a gap that is there at the first evaluations already, and hardly grows afterwards, or one of two
    fifths of the loss that comes before any sample was seen twice, and stays, or ends a single pass in which the
    validation loss turned (a remark, where all samples were seen before the first of them, as in logs by epochs); or a
    validation loss that gains nothing at all, while the training loss falls at once, and so not by learning samples by
    heart. Or labels that counting tells worse than chance, where it tells those of training: their classes are named or
    counted otherwise.
Why it matters: choosing, stopping and reporting by such a set is by another task than the one that is trained; its
    loss does not tell overfitting.
Evidence: the gap, passes over the data then, and how well the two sets are told apart.
Remedy: hold out validation samples of the same source (`data.validation_fraction`), and keep the other set as one of
    `evaluation.sets`.
False alarms: another set on purpose: it is said all the same, as its loss is not comparable. A validation loss of
    another scale, as of sums or of more candidates: where it falls with the training loss it is a remark. Few
    validation documents differ from others by their subjects: eight at least are asked for. Dropout and smoothing make
    the training loss higher than it is, and so hide a gap but never make one.
Source: own; telling two sets apart by a classifier: Lopez-Paz and Oquab 2017, arXiv 1610.06545.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy, Withheld
from trimtab.doctor.reading.contradicted import counting
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.evaluations import (
    FEW_TEXTS,
    error_of_share,
    gained_nothing,
    judges_by_chance,
    learns_at_once,
)
from trimtab.doctor.reading.gaps import chance_of, early_gaps, falls_with, has_turned, is_one_pass, stays, steady
from trimtab.doctor.reading.one_class import is_same
from trimtab.runs import format

CODE: Final = "validation-shift"
SEPARABLE: Final = 0.8
SURELY: Final = 0.95
"""Told apart in nearly all pairs: then one wide gap is enough."""
GAP: Final = 0.05
"""Of the loss: a gap that is no chance where the sets are told apart, too."""
LARGE_GAP: Final = 0.2
"""The same where that is not known."""
OF_DESCENT: Final = 0.1
"""Of what was gained: where the passes are not known, a gap of less is what every small set leaves in the end."""
TELLS: Final = 0.2
"""Above the share of the most frequent class: labels that counting tells have to do with their texts."""
MOST_PART: Final = 5.0
"""Times the loss: a part of more is of a loss near zero, and says nothing."""


def check(case: Case) -> Iterator[Finding | Withheld]:
    """A warning; a remark where the sets are told apart, and the loss shows nothing of it."""
    validation = Curve.of(case.validation_loss())
    training, is_slice = Curve.of(case.evaluated("training_slice/loss")), True
    if training is None:
        training, is_slice = Curve.of(case.loss()), False
    if validation is None or training is None or len(validation) < 3:
        return
    if (other := _other_labels(case)) is not None:
        yield other
        return
    apart, documents = (case.number("counting", "sets", name) for name in ("separability", "documents"))
    error = 1.0 / math.sqrt(6.0 * documents) if documents else math.inf
    if case.fact("task") == "regression" and apart is None:
        return  # a few far targets on one side are no other kind
    told_apart = apart is not None and apart >= SEPARABLE and apart - 0.5 > 3.5 * error
    if case.fact("counting") is not None and apart is not None and not told_apart:
        return
    early = early_gaps(case, validation, training)
    # Little was learned of either kind at first; where no sample comes again the end tells more.
    ending = early_gaps(case, validation, training, at_end=True) if is_one_pass(case) else None
    wide = ending is not None and ending[0] >= 2.0 * LARGE_GAP * abs(ending[1])
    parted = wide and has_turned(validation)
    early = ending if parted else early
    if early is None:
        return
    gap, level, steps, new, widest = early
    if apart is not None and apart >= SURELY and is_slice and new and abs(widest) >= GAP * abs(level):
        gap = widest  # of sets that have next to nothing in common either may be the easier one for a while
    again = not new and _seen_again(case, steps[0])
    part = gap / max(abs(level), 1e-9)
    # Of two sets of one kind the training set is never the harder one, but by chance.
    wide = abs(part) >= GAP if told_apart and is_slice else part >= (GAP if told_apart else LARGE_GAP)
    wide = wide and (told_apart or new or gap >= OF_DESCENT * training.descent)
    # The same mode on samples that are new to the model: only their kind can differ. Without a slice dropout
    # could, but that makes the training loss the higher one; a gap that comes and goes is of the order of the data.
    sure = new and (is_slice or parted or (gap >= 2.0 * LARGE_GAP * abs(level) and stays(validation, training, gap)))
    # What was seen again and again before the first evaluation may have been learned by heart until then.
    nothing = not again and gained_nothing(case, validation, training) and learns_at_once(case, training)
    if not told_apart and not nothing and (not wide or not (sure or steady(validation, training, gap))):
        return
    if not told_apart and judges_by_chance(case):
        yield Withheld(CODE, (f"a loss on more than {FEW_TEXTS} validation texts",))
        return
    wide = wide or nothing
    if not told_apart and not nothing and gap < chance_of(training):
        return
    if told_apart and not wide and part < 0.5 * GAP:
        return
    # A sum, more candidates or another loss lie as far off, and fall with the training loss; as does what was learned
    # before a log that begins in the middle.
    begun = Curve.of(case.loss()) or training
    is_foreign = case.target != "trimtab" and not is_slice
    counted_otherwise = is_foreign and (not begun.from_start or falls_with(validation, training))
    doubtful = not told_apart and (again or counted_otherwise or _says_one_class(case))
    evidence = []
    if told_apart and apart is not None:
        told = (
            f"counting runs of tokens tells a validation document from a training document in {apart:.0%} of all "
            "pairs, where 50 % is chance"
        )
        evidence.append(Evidence("facts.counting.sets", (0, 0), apart, 0.5, told))
    passes = ", before any sample was seen twice" if new else ""
    where = f"at step {steps[0]:,}" if steps[0] == steps[1] else f"from step {steps[0]:,} to {steps[1]:,}"
    told = (
        f"{where}{passes}, the validation loss lay {format.decimal(gap)} "
        f"{f'({100 * part:+.0f} %) ' if abs(part) < MOST_PART else ''}off the training loss"
        f"{'' if abs(part) < MOST_PART else f', which was {format.decimal(level)}'}"
    )
    evidence.append(Evidence("validation/loss", steps, gap, 0.0, told))
    if nothing:
        told = (
            f"the training loss fell at once, from {format.decimal(training.start)} to {format.decimal(training.end)}, "
            f"and the validation loss never came below {format.decimal(float(validation.values.min()))}"
        )
        evidence.append(Evidence("validation/loss", (validation.first_step, validation.last_step), None, None, told))
    own_source = case.target == "trimtab" and case.setting("data.validation_source.name") is not None
    yield Finding(
        CODE,
        "warning" if wide and not doubtful else "info",
        0.9 if told_apart and wide else 0.8 if wide and sure and is_slice else 0.4 if doubtful else 0.6,
        1,
        "the validation data is of another kind than the training data, or harder, or its loss is counted otherwise: "
        "it was off as much at the first evaluations as later"
        if doubtful
        else "the validation data is of another kind than the training data: its loss was off before anything could be "
        "learned by heart",
        tuple(evidence),
        remedies=(
            *(
                [Remedy("hold out a part of the training data", "trimtab", {"data.validation_source": None})]
                if own_source
                else []
            ),
            Remedy("validate on samples of the source that is trained on, and judge the other set besides"),
        ),
    )


def _other_labels(case: Case) -> Finding | None:
    """Validation labels that counting tells worse than chance, where it tells those of training: they are named, or
    counted, otherwise."""
    right, majority, elsewhere, texts = (
        case.number("counting", "labels", name)
        for name in ("accuracy", "majority", "validation_accuracy", "validation_texts")
    )
    classes = case.fact("targets", "classes")
    if right is None or majority is None or elsewhere is None or not texts or not classes:
        return None
    chance = 1.0 / len(classes)
    if right < majority + TELLS or elsewhere > chance - 4.0 * error_of_share(chance, texts):
        return None
    told = (
        f"{counting(case)} tells {right:.0%} of the training labels right, and in the same way {elsewhere:.0%} of the "
        f"validation labels, where drawing one of {len(classes)} gives {chance:.0%}"
    )
    return Finding(
        CODE,
        "warning",
        0.9,
        1,
        "the labels of the validation set mean other classes than those of the training set",
        (Evidence("facts.counting.labels.validation_accuracy", (0, 0), elsewhere, chance, told),),
        remedies=(Remedy("number and name the classes of both sets by one table"),),
    )


def _says_one_class(case: Case) -> bool:
    """Whether a log's evaluations have as many right answers each, to the last digit, in the second half and four at
    least: they cost what one class costs where classes are as frequent as they are there."""
    accuracy = Curve.of(case.evaluated("validation/accuracy"))
    return accuracy is not None and len(accuracy) >= 8 and bool(is_same(accuracy)[len(accuracy) // 2 :].all())


def _seen_again(case: Case, step: int) -> bool:
    """Whether all samples were seen before the first evaluation that is held against the training loss."""
    epochs, last = case.epochs(), case.history.last_step
    return case.counts_epochs or (last > 0 and step * epochs / last >= 1.0 - 1e-6)
