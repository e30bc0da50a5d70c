"""target-leak: the answer is in the input.

Looks for: before step 1, answers at earlier positions that change when later tokens do, in a model that predicts the
    next token (the fact `first_batch.future_changes`): a causal mask is missing, or targets are not shifted. Of
    labelled texts, a run of tokens that stands in nearly all texts of a class and in nearly none of the others
    (`counting.labels.telling`, 0.95 or more: a field that was left in stands in every text, a word that goes with a
    class in most; from 0.85 on a remark), or a token at one place (`placed`, 0.97: a column of a table, or a pixel),
    whether the model has found it yet or not; of a number, a token at one place that explains all of its spread but
    a thousandth (`counting.placed`); or texts to write that stand in the texts to read (`counting.copied`). Of
    text, a validation loss far below a quarter of what pairs of tokens reach, which no model of text comes to. In logs
    without facts: a validation loss of a language model below a thirtieth of its first loss; and, as a remark, three
    classes or more of which nearly every answer is right.
Why it matters: the model learns to copy. Its figures are excellent, in validation, too, and worth nothing where the
    answer is not given.
Evidence: how far answers move with the future, how well one clue tells the class, or the loss beside its yardstick.
Remedy: a causal mask and targets one token ahead; leave the field out of the text that tells the label.
False alarms: tasks that are as easy as they look (a class by its heading), and made-up text that repeats itself, where
    pairs of tokens are a poor yardstick. Validation texts that are in the training set look alike: that is leakage.
Source: own; Kaufman et al. 2012, "Leakage in Data Mining", ACM TKDD 6(4), for what leaks are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.classes import classifies, num_classes
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.evaluations import judges_by_chance
from trimtab.doctor.reading.levels import counted_loss
from trimtab.runs import format

CODE: Final = "target-leak"
AHEAD: Final = 0.01
"""Of the deviation of answers: those of a causal model do not change at all."""
TELLING: Final = 0.85
IN_EVERY: Final = 0.95
"""What is left of all texts for those that are cut or written otherwise: a word that goes with a class is in fewer."""
PLACED: Final = 0.97
OF_NUMBERS: Final = 0.999
"""Of the spread: a digit tells 0.99 of the number that it begins."""
_RUN: Final = "of each class but one some run of tokens stands"
COPIED: Final = 0.9
"""Of the texts that are asked for: so many stand in the text that is read, word for word."""
ALL_RIGHT: Final = 0.985
OF_PAIRS: Final = 0.2
"""Of what bigram counts reach: far below what models of text come to, a third of it at best."""
OF_FIRST: Final = 1 / 30


def check(case: Case) -> Iterator[Finding]:
    """A warning; a remark where nothing but good figures speaks for it."""
    ahead = case.number("first_batch", "future_changes")
    if ahead is not None and ahead > AHEAD:
        yield _looks_ahead(ahead)
        return
    if classifies(case):
        yield from _clue(case)
        yield from _all_right(case)
    elif case.fact("task") == "regression":
        yield from _column(case)
    elif case.fact("task") == "seq2seq":
        yield from _copied(case)
    else:
        yield from _too_good(case)


def _looks_ahead(ahead: float) -> Finding:
    told = f"answers before a position move by {ahead:.2g} of their deviation when the tokens after it are exchanged"
    return Finding(
        CODE,
        "warning",
        0.97,
        1,
        "the model sees the tokens that it is to predict: answers depend on what comes after them",
        (Evidence("facts.first_batch.future_changes", (0, 1), ahead, 0.0, told),),
        remedies=(
            Remedy("mask attention to later positions (is_causal=True), and let no layer mix positions both ways"),
            Remedy("or ask for hidden tokens, which such a model can learn", "trimtab", {"task.name": "masked_lm"}),
        ),
    )


def _clue(case: Case) -> Iterator[Finding]:
    telling, placed, number = (case.number("counting", "labels", name) for name in ("telling", "placed", "texts"))
    fact = "placed" if placed is not None and placed >= PLACED else "telling"
    share = placed if placed is not None and fact == "placed" else telling
    if share is None or share < TELLING:
        return
    told = "for each class but one some token stands at its place" if fact == "placed" else _RUN
    told += f" in {share:.0%} more of its texts than of all others"
    evidence = [Evidence(f"facts.counting.labels.{fact}", (0, 0), share, None, f"{told} ({number or 0:,.0f} texts)")]
    accuracy = Curve.of(case.evaluated("validation/accuracy"))
    if accuracy is not None:
        best = float(accuracy.values.max())
        told = f"the model tells {best:.1%} of the validation texts right at best"
        evidence.append(Evidence("validation/accuracy", (accuracy.first_step, accuracy.last_step), best, None, told))
    yield Finding(
        CODE,
        "warning" if share >= IN_EVERY else "info",
        0.9 if share > 0.97 else 0.8 if share >= IN_EVERY else 0.5,
        1,
        f"one {'place' if fact == 'placed' else 'run of tokens'} alone tells the class: the answer stands in the text"
        if share >= IN_EVERY
        else "one run of tokens nearly tells the class: the answer may stand in the text, or the task is as easy",
        tuple(evidence),
        remedies=(
            Remedy("look for the label in the texts (a field, a name, a heading), and leave it out"),
            Remedy("if it is there where the model is to be used, too, a rule does instead of a model"),
        ),
    )


def _column(case: Case) -> Iterator[Finding]:
    placed = case.number("counting", "placed")
    if placed is None or placed < OF_NUMBERS:
        return
    told = f"what stands at one place explains {placed:.1%} of how the targets differ, in texts that were not counted"
    yield Finding(
        CODE,
        "warning",
        0.85,
        1,
        "one place alone tells the number: the target, or what was made of it, is among what is read",
        (Evidence("facts.counting.placed", (0, 0), placed, OF_NUMBERS, told),),
        remedies=(Remedy("look for the column that holds the target, and leave it out where it is not there in use"),),
    )


def _all_right(case: Case) -> Iterator[Finding]:
    """A remark: a log in which nearly every answer is right."""
    accuracy, number = Curve.of(case.evaluated("validation/accuracy")), num_classes(case)
    if (
        case.fact("task") is not None
        or accuracy is None
        or len(accuracy) < 4
        or number is None
        or judges_by_chance(case)
    ):
        return
    late = accuracy.values[len(accuracy) // 2 :]
    if number < 3 or float(late.min()) < ALL_RIGHT or float(late.max()) > 1.0:
        return
    onset = int(accuracy.steps[(accuracy.values >= ALL_RIGHT).argmax()])
    told = f"from step {onset:,} on {late.min():.1%} and more of the validation answers are right"
    yield Finding(
        CODE,
        "info",
        0.5,
        1,
        "nearly every answer is right: the task is as easy as that, or the answer is in the input",
        (Evidence("validation/accuracy", (onset, accuracy.last_step), float(late.min()), ALL_RIGHT, told),),
        remedies=(Remedy("see whether one field alone tells the class, and whether it is there in use, too"),),
    )


def _copied(case: Case) -> Iterator[Finding]:
    share = case.number("counting", "copied")
    if share is None or share < COPIED:
        return
    told = f"{share:.0%} of the texts that are asked for stand in the text that is read, word for word"
    yield Finding(
        CODE,
        "warning",
        0.75,
        1,
        "the text that is asked for stands in the text that is read: the model learns to copy it",
        (Evidence("facts.counting.copied", (0, 0), share, None, told),),
        remedies=(Remedy("take the answer out of the text that is read, where it is not there in use, too"),),
    )


def _too_good(case: Case) -> Iterator[Finding]:
    curve, task = Curve.of(case.validation_loss()), case.fact("task")
    speaks = task == "causal_lm" or (task is None and case.number("tokenizer", "vocabulary_size") is not None)
    if curve is None or not speaks or (case.number("leakage") or 0) > 0:
        return
    lowest, bigram = float(curve.values.min()), counted_loss(case, "bigram")
    if bigram is not None:
        level, sure, what = OF_PAIRS * bigram, 0.75, f"counting pairs of tokens reaches {format.decimal(bigram)}"
    else:
        loss = Curve.of(case.loss())
        if loss is None or float(loss.values[0]) < 5.0:  # of a vocabulary of 150 or more
            return
        start = float(loss.values[0])
        level, sure, what = OF_FIRST * start, 0.6, f"the run began at {format.decimal(start)}"
    if lowest >= level or lowest <= 0.0:
        return
    onset = int(curve.steps[(curve.values < level).argmax()])
    told = f"the validation loss came to {format.decimal(lowest)}; {what}"
    yield Finding(
        CODE,
        "warning",
        sure,
        onset,
        "the validation loss is lower than any model of text comes to: the answer is in the input, or the text repeats "
        "itself",
        (Evidence("validation/loss", (onset, curve.last_step), lowest, level, told),),
        remedies=(
            Remedy(
                "check that targets are one token ahead of inputs, and that attention is masked to earlier positions"
            ),
        ),
    )
