"""Labels that contradict what counting runs of tokens tells of their texts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence
from trimtab.doctor.reading.classes import num_classes
from trimtab.doctor.reading.counted import BY_ROWS
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.evaluations import error_of_share, judged_answers
from trimtab.doctor.reading.medians import median

TELLS, TELLS_A_LITTLE = 0.3, 0.15
"""Of what the share of the most frequent class leaves to be told."""
SURELY_FLAT: Final = 0.02
"""The most that the standard error of a quarter's errors may be, for them to be called equal."""
LEAST: Final = 0.03
"""Of the surest answers: fewer errors are those of a good guess."""
CONTRADICTED: Final = 0.02
BETTER: Final = 0.1
ONE_KIND: Final = 0.7
"""Separability of the two sets: above they differ in their texts, too."""
VAGUE: Final = 0.3
"""Of the errors of the surest quarter, that their standard error may be."""
GROWS: Final = 2.4
"""Times the odds of an error in the surest quarter, that those of the next are: where counting tells little, as of many
classes by few texts each, it is wrong where it is sure, too, and still far less often than where it is not."""
TELLS_MUCH, GROWS_LITTLE = 0.5, 1.9
"""Where counting tells less than that, a hard task is hard in its surest answers, too."""
SHARED: Final = 0.5
"""Of all errors of asking the nearest rows, as a part of the answers: wrong labels lie as thickly where it is sure, and
what is hard has more of them elsewhere, though its rows near each other are sure of what they cannot tell."""
WELL_BELOW: Final = 0.75
"""Of what counting tells right: a model that tells less is held back, whatever its gap."""
ONE_BY_ONE: Final = 0.8
"""Of tags, as how many independent ones they count: where these are fewer counting errs text by text, as where a tag
hangs on what stands far from it, and wrong tags come one by one."""


def independent(case: Case, of: str = "") -> float | None:
    """How many answers of counting there are, for the error of their share: texts, or tags that count as so many."""
    answers = case.number("counting", "labels", f"{of}answers")
    return case.number("counting", "labels", f"{of}texts") if answers is None else answers


def _by_rows(case: Case) -> bool:
    return bool(case.fact("counting", "labels", "by") == BY_ROWS)


def counting(case: Case) -> str:
    """What counts, in words: naive Bayes on runs of tokens, or the nearest rows."""
    return "asking the nearest rows" if _by_rows(case) else "counting"


def accuracy_of_counting(case: Case) -> float:
    """0 at the share of the most frequent class, 1 where all is right."""
    accuracy, majority = (case.number("counting", "labels", name) or 0.0 for name in ("accuracy", "majority"))
    return (accuracy - majority) / max(1.0 - majority, 1e-9)


def sure_errors(case: Case) -> Iterator[Evidence]:
    """Errors of the surest answers that are as many as of the next."""
    errors, answers = case.fact("counting", "labels", "sure_errors"), independent(case)
    if not isinstance(errors, list) or not answers or (told := accuracy_of_counting(case)) < TELLS_A_LITTLE:
        return
    if answers < ONE_BY_ONE * (case.number("counting", "labels", "positions") or 0.0):
        return
    number = max(1.0, answers // 4)
    surest, following = float(errors[0]), float(errors[1])
    spread = math.sqrt(max(surest * (1 - surest), 0.25 / number) / number)
    if told < TELLS and (spread > SURELY_FLAT or following - surest > 1.5 * spread):
        return  # where counting tells little, its errors must be as many to a hair
    # Of few texts too little is known of either quarter to say that errors do not grow with doubt.
    if surest - 2.0 * spread < LEAST or spread > VAGUE * surest or following > 1.7 * surest + 2.0 * spread:
        return
    grows = GROWS if told > TELLS_MUCH else GROWS_LITTLE
    if following / max(1.0 - following, 1e-9) > grows * surest / max(1.0 - surest, 1e-9):
        return  # of many errors no part can be 1.7 times as large
    if _by_rows(case) and surest < SHARED * (1.0 - (case.number("counting", "labels", "accuracy") or 0.0)):
        return
    if _is_right_elsewhere(case, surest):
        return
    text = (
        f"of the surest quarter of what {counting(case)} tells {surest:.1%} are labelled otherwise, and "
        f"{following:.1%} of the next: errors do not grow with doubt"
    )
    yield Evidence("facts.counting.labels.sure_errors", (0, 0), surest, 0.01, text)


def _is_right_elsewhere(case: Case, errors: float) -> bool:
    """Whether the model is right far more often than labels of which so many are wrong let it: then counting errs, as
    where it tells the kind of a class alone. Not where validation labels are right and training labels are not."""
    accuracy, number = Curve.of(case.evaluated("validation/accuracy")), judged_answers(case)
    if accuracy is None or not number or any(True for _ in better_elsewhere(case)):
        return False
    reached, most, half = float(median(accuracy.values[-3:])), 1.0 - errors, 1.0 - 0.5 * errors
    if reached > half + 4.0 * error_of_share(half, number) and _errs_alike(case, errors):
        return True  # half of these errors at least are of counting
    return reached > most + max(BETTER, 4.0 * error_of_share(most, number))


def _errs_alike(case: Case, errors: float) -> bool:
    """Whether counting errs as often on validation texts, as it does not where so many training labels are wrong and
    those are right."""
    right, elsewhere = (case.number("counting", "labels", name) for name in ("accuracy", "validation_accuracy"))
    texts, judged = independent(case), independent(case, "validation_")
    if right is None or elsewhere is None or not texts or not judged:
        return False
    spread = math.hypot(error_of_share(right, texts), error_of_share(elsewhere, judged))
    return elsewhere - right + 2.0 * spread < 0.5 * errors


def better_elsewhere(case: Case) -> Iterator[Evidence]:
    """Validation labels that counting tells far better than those it was counted on, in folds: sets of one kind differ
    so only in how right their labels are."""
    right, elsewhere, alike = (
        case.number("counting", "labels", name) for name in ("accuracy", "validation_accuracy", "validation_precision")
    )
    texts, number = independent(case), independent(case, "validation_")
    classes, apart = num_classes(case), case.number("counting", "sets", "separability")
    if right is None or not texts or elsewhere is None or not number or classes is None or classes < 2:
        return
    elsewhere = elsewhere if alike is None else min(elsewhere, alike)  # a set may have more of an easy tag
    copied, documents = case.number("leakage") or 0.0, case.number("validation", "documents") or number
    gap, spread = elsewhere - right, math.hypot(error_of_share(right, texts), error_of_share(elsewhere, number))
    if gap < max(BETTER, 4.0 * spread) or copied > LEAST * documents or (apart is not None and apart > ONE_KIND):
        return
    share = min(gap / max(elsewhere - (1.0 - elsewhere) / (classes - 1.0), gap), 1.0)
    told = (
        f"{counting(case)} tells {elsewhere:.0%} of the validation labels right, and {right:.0%} of the training "
        f"labels, each by the others: as if {share:.0%} of these were wrong"
    )
    yield Evidence("facts.counting.labels.validation_accuracy", (0, 0), share, 0.0, told)


def contradictions(case: Case) -> Iterator[Evidence]:
    """Equal texts that have different labels."""
    number, texts = case.number("contradictions") or 0.0, case.number("training", "documents")
    if texts and number >= max(3.0, CONTRADICTED * texts):
        told = f"{number:,.0f} of {texts:,.0f} texts stand in the training set with different labels"
        yield Evidence("facts.contradictions", (0, 0), number / texts, 0.0, told)
