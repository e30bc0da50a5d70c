"""leakage: validation samples are in the training data.

Looks for: validation documents that the training set has, too: equal ones (the fact `leakage`, counted after duplicates
    were left out), two in a hundred of which are a warning, or nearly equal ones where these were looked for
    (`duplicates.near`), one in twenty of which is.
Why it matters: the validation loss then measures what was learned by heart. It goes on falling where the model gets no
    better, so that overfitting is not seen, and the best checkpoint and the moment to stop are chosen wrongly.
Evidence: how many documents, and of how many; whether the validation loss lies at or below the training loss after
    several passes, which it could not otherwise.
Remedy: leave the copies out of the training set (`data.duplicates.exact: drop`, `data.duplicates.near: drop`), or take
    validation text from elsewhere.
False alarms: texts that are frequent by nature, such as greetings, or alike, such as pieces of source code: fewer than
    that are a remark, from one in a hundred on.
Source: Lee et al. 2022, arXiv 2107.06499, section 5; own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.curves import Curve
from trimtab.runs import format
from trimtab.runs.leaked import leaked_documents, leaked_share

CODE: Final = "leakage"
EQUAL, NEARLY = 0.02, 0.05
"""Of the validation documents: fewer hardly move its loss."""
FEWEST: Final = 3.0
"""Nearly equal ones, of however few."""
MANY: Final = 0.15
"""From there on nothing else that the validation loss shows is worth reading."""


def check(case: Case) -> Iterator[Finding]:
    """A warning; a remark of few."""
    share = leaked_share(case.facts, case.config)
    if share is None:
        return
    documents = case.number("validation", "documents") or 0.0
    exact, near = leaked_documents(case.facts, case.config)
    kinds = [f"{format.count(number)} {word}" for number, word in ((exact, "equal"), (near, "nearly equal")) if number]
    told = f"{' and '.join(kinds)} of {format.count(documents)} validation documents are in the training set, too"
    evidence = [Evidence("facts.leakage", (0, 0), share, 0.0, told), *_no_gap(case)]
    kind = "near" if near else "exact"
    few = exact < EQUAL * documents and exact + near < max(FEWEST, NEARLY * documents)
    config = {f"data.duplicates.{kind}": "drop"} if case.target == "trimtab" else {}
    yield Finding(
        CODE,
        "info" if few else "warning",
        0.95 if share >= MANY else 0.75,
        1,
        f"{share:.1%} of the validation documents are in the training set, too: the validation loss "
        + ("measures what was learned by heart" if share >= MANY else "is lower by that than on new texts"),
        tuple(evidence),
        remedies=(
            Remedy("leave the copies out of the training set", case.target if config else "text", config),
            Remedy("take validation text from elsewhere, or split by source and not by row"),
        ),
    )


def _no_gap(case: Case) -> Iterator[Evidence]:
    """After some passes over the data the training loss lies below the validation loss, were that of other text."""
    gap, epochs = Curve.of(case.evaluated("generalization_gap")), case.epochs()
    if gap is None or epochs < 2.0:
        return
    told = (
        f"after {epochs:.1f} passes over the training data the gap to the validation loss is {format.decimal(gap.end)}"
    )
    yield Evidence("generalization_gap", (gap.first_step, gap.last_step), gap.end, None, told)
