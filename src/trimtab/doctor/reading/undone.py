"""What the run itself went back for, of which the curves show nothing any more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy

MOST_SHOWN: Final = 5


def undone(case: Case, code: str) -> Iterator[Finding]:
    """A remark on the rollbacks for `code`: where, why, and what was left out."""
    made = [back for back in case.history.rollbacks.made if back.code == code]
    if not made:
        return
    first = made[0]
    times = "" if len(made) == 1 else f"; it did so {len(made)} times in all"
    yield Finding(
        code,
        "info",
        0.95,
        first.onset_step,
        f"{first.reason.partition('; rollback ')[0]}: {first.in_words()}{times}",
        tuple(
            Evidence("train/loss", (back.onset_step, back.step), None, None, f"{back.reason}: {back.in_words()}")
            for back in made[:MOST_SHOWN]
        ),
        remedies=(Remedy("look at the samples that were left out: the record names them in the decision"),),
    )
