"""The doctor's words: three sentences that say how a run went, what leads, and what to do next."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.codes import SHORT, UNJUDGED
from trimtab.doctor.finding import Finding, Verdict, Withheld, that_can_be_logged
from trimtab.doctor.reading.contradicted import WELL_BELOW, counting
from trimtab.runs import format
from trimtab.runs.history import Series
from trimtab.runs.leading import leading_of
from trimtab.runs.metrics import selection_direction
from trimtab.runs.printable import printable
from trimtab.runs.reasons import reason_in_a_line

AS_GOOD_AS_NEW: Final = 4.0
"""Epochs up to which repeated text teaches nearly as much as new one (Muennighoff et al. 2023, arXiv 2305.16264)."""
MOST_NAMES: Final = 3
FEW_STEPS: Final = 24
"""With fewer most rules say nothing."""


def summarize(case: Case, verdict: Verdict, findings: Sequence[Finding], withheld: Sequence[Withheld]) -> str:
    """Three sentences."""
    return " ".join([_course(case), _leading(case, verdict, findings), _next(case, verdict, findings, withheld)])


def _course(case: Case) -> str:
    history = case.history
    loss = case.loss()
    # Loops of other people may count from 0.
    from_0 = loss is not None and [0, 1][: len(loss.steps)] == loss.steps[:2].tolist() != []
    num_steps = history.last_step + from_0
    unit = unit_of(case)
    steps = f"{format.count(num_steps)} of {format.counted(case.planned_steps, unit)}"
    if num_steps >= case.planned_steps:
        steps = format.counted(num_steps, unit)
    parts = []
    if loss is not None and len(loss.finite()[1]):
        _, values = loss.finite()
        few = max(1, len(values) // 20)
        mean = ", the mean of its last twentieth," if few > 1 else ""
        reached = float(values[-few:].mean())
        if (lost := _not_finite_since(loss)) is not None:
            reached, mean = lost[1], f" at {unit} {lost[0]:,}, and is not finite since {unit} {lost[2]:,},"
        parts.append(
            f"the training loss went from {format.decimal(float(values[0]))} to {format.decimal(reached)}{mean}"
        )
    validation = _selected(case, "validation/loss")
    if validation is not None and len(validation.finite()[1]):
        at, values = validation.finite()
        best = int(values.argmin())
        whose = f" of the {case.selected} weights" if case.selected else ""
        parts.append(
            f"the best validation loss{whose} is {format.decimal(float(values[best]))}, at {unit} {at[best]:,}"
            f"{_worse_than_counting(case)}{_chosen_by(case, unit)}{_fewer_than_counting(case)}"
        )
    none = "no loss is known" if loss is None or not len(loss.steps) else "no loss was finite"
    return f"In {steps} " + (" and ".join(parts).rstrip(",") if parts else none) + "."


def _chosen_by(case: Case, unit: str) -> str:
    """What tells the best checkpoint, where that is another metric than the loss."""
    metric = next(iter(leading_of(case.facts)), "validation/loss")
    series = case.history.get(metric)
    if metric.partition("@")[0] == "validation/loss" or series is None or not len(series.finite()[1]):
        return ""
    steps, values = series.finite()
    at = int(values.argmax() if selection_direction(metric) == "higher" else values.argmin())
    name = metric.removeprefix("validation/").partition("@")[0].replace("_", " ")
    return f"; the best {name} is {format.decimal(float(values[at]))}, at {unit} {steps[at]:,}"


def unit_of(case: Case) -> Literal["step", "epoch"]:
    """What the record counts."""
    return "epoch" if case.counts_epochs else "step"


def _not_finite_since(loss: Series) -> tuple[int, float, int] | None:
    """Step and value of the last finite loss and the step after which none was, where a run ends so."""
    if not loss.num_samples or math.isfinite(loss.last):
        return None
    steps, values = loss.raw()
    good = np.flatnonzero(np.isfinite(values))
    if len(good):
        return int(steps[good[-1]]), float(values[good[-1]]), int(steps[good[-1] + 1])
    at, means = loss.finite()
    after = loss.first_steps[loss.steps > at[-1]]
    return int(at[-1]), float(means[-1]), int(after[0])


def _selected(case: Case, metric: str) -> Series | None:
    """A metric of the weights that the run chooses by."""
    return case.history.get(f"{metric}@{case.selected}") if case.selected else case.evaluated(metric)


def beaten_by(case: Case) -> str:
    """What a run that is over does not come below, "" where it does or that is not known."""
    over = case.history.ended is not None or case.history.last_step >= case.planned_steps
    if over and _fewer_than_counting(case):
        return counting(case)
    return "counting pairs of tokens" if over and _worse_than_counting(case) else ""


def _fewer_than_counting(case: Case) -> str:
    """The same of a classifier that tells far fewer classes than counting, or the nearest rows, tell of those texts."""
    series, reached = _selected(case, "validation/accuracy"), case.number("counting", "labels", "validation_accuracy")
    right = series.finite()[1] if series is not None and case.fact("task") == "classification" else ()
    if reached is None or not len(right) or float(max(right)) >= WELL_BELOW * reached:
        return ""
    return f"; {float(max(right)):.0%} of its answers are right at best, where {counting(case)} tells {reached:.0%}"


def _worse_than_counting(case: Case) -> str:
    """What a reader must know of a run in which nothing is wrong but that it learned little."""
    series, bigram = _selected(case, "validation/bits_per_byte"), case.number("yardsticks", "bigram")
    bits = series.finite()[1] if series is not None else ()
    if bigram is None or not len(bits) or float(min(bits)) <= bigram:
        return ""
    tokens, parameters = case.history.get("tokens"), case.number("parameters", "total")
    part = float(tokens.columns.total.sum()) / parameters if tokens is not None and parameters else None
    seen = f", after {part:.2g} tokens a parameter, where 20 are best" if part is not None and part < 10.0 else ""
    return (
        f", which is worse than counting pairs of tokens ({float(min(bits)):.2f} against {bigram:.2f} bits per byte)"
        f"{seen}"
    )


def _leading(case: Case, verdict: Verdict, findings: Sequence[Finding]) -> str:
    passed = _passed(case, findings)
    ended = case.history.ended
    if verdict == "failed" and ended is not None and not any(finding.severity == "error" for finding in findings):
        reason = reason_in_a_line(ended.reason).rstrip(".")
        return f"It ended in failure: {reason}. No fault was found in what was logged{passed}."
    if case.history.last_step == 0 and not findings:
        return "It came to no step, so that nothing can be judged."
    if not findings or verdict == "healthy":
        notes = f" ({format.counted(len(findings), 'remark')})" if findings else ""
        last = case.history.last_step
        shows = f"; {format.counted(last, unit_of(case))} {'shows' if last == 1 else 'show'} few faults"
        few = shows if 0 < last < FEW_STEPS else ""
        by_heart = next((finding for finding in findings if finding.code == "overfitting"), None)
        if by_heart is not None and ended is not None and ended.restored_step is not None:
            return (
                f"It overfitted from step {by_heart.onset_step:,} on, and the best weights, of step "
                f"{ended.restored_step:,}, were restored: no other fault was found in what was logged"
                f"{notes}{few}{passed}."
            )
        return f"No fault was found in what was logged{notes}{few}{passed}."
    lead = findings[0]
    if lead.code == UNJUDGED:
        return f"It is {_clause(lead.cause)}{passed}."
    also = f", which explains {', '.join(lead.consequences)}" if lead.consequences else ""
    others = len(findings) - 1
    more = f" ({format.counted(others, 'further finding')})" if others else ""
    sure = "almost surely" if lead.confidence >= 0.9 else "probably" if lead.confidence >= 0.6 else "possibly"
    told = f"From {unit_of(case)} {lead.onset_step:,} on it is {sure} a case of {lead.code}{also}"
    return f"{told}: {_clause(lead.cause)}{more}{passed}."


def _passed(case: Case, findings: Sequence[Finding]) -> str:
    """What was told during the run as a warning or worse, and is not found in the whole of it."""
    found = {code for finding in findings for code in (finding.code, *finding.consequences)}
    told = {
        str(finding.get("code")): changed.step
        for changed in case.history.findings
        for finding in changed.findings
        if finding.get("severity") != "info" and finding.get("code") not in found
    }
    if not told:
        return ""
    named = ", ".join(f"{printable(code)} at {unit_of(case)} {step:,}" for code, step in told.items())
    over = case.history.ended is not None or case.history.last_step >= case.planned_steps
    return f"; what was told during the run has passed{', seen from its end' if over else ' by now'} ({named})"


def _next(case: Case, verdict: Verdict, findings: Sequence[Finding], withheld: Sequence[Withheld]) -> str:
    if findings and verdict != "healthy":
        remedies = findings[0].remedies
        if findings[0].code == UNJUDGED:
            return f"Next: {', '.join(_clause(remedy.summary) for remedy in remedies)}."
        return f"Next: {_clause(remedies[0].summary)}." if remedies else "Next: look at the evidence."
    short = next((finding for finding in findings if finding.code == SHORT and finding.remedies), None)
    if short is not None:
        return f"To go on: {_clause(short.remedies[0].summary)}."
    if case.epochs() > AS_GOOD_AS_NEW and _worse_than_counting(case):
        return f"To go on: more text, as this was read {case.epochs():,.0f} times."
    if _still_falling(case):
        epochs = case.epochs()
        if epochs > AS_GOOD_AS_NEW:
            return (
                f"The validation loss was still falling at the end, after {epochs:,.0f} epochs of the same data: more "
                "data would very likely lower it further than more steps."
            )
        return "The validation loss was still falling at the end: more steps would very likely lower it."
    if withheld:
        asked = withheld if case.config else that_can_be_logged(withheld)
        counts = Counter(need for item in asked for need in item.needs)
        needs = [need for need, _ in counts.most_common()]  # first what lets most be judged
        if asked:
            return f"To judge {_some([item.code for item in asked])}, log {_some(needs)}."
    return "No change is proposed."


def _still_falling(case: Case) -> bool:
    """Whether a run that is over had its best evaluation last, well below that at four fifths of the way."""
    validation = _selected(case, "validation/loss")
    if validation is None or case.history.last_step < case.planned_steps:
        return False
    steps, values = validation.finite()
    if len(values) < 5 or values[-1] > values.min():
        return False
    before = float(np.interp(0.8 * steps[-1], steps, values))
    return before - float(values[-1]) > 0.01 * float(values.max() - values.min())


def _some(names: Sequence[str]) -> str:
    """The first of many names: the others are where the verdict lists what was withheld."""
    more = len(names) - MOST_NAMES
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:MOST_NAMES])} and {more} others"


def _clause(text: str) -> str:
    text = printable(text).strip().rstrip(".")
    first = text.split(" ", 1)[0]
    return text if first.isupper() or not text else text[0].lower() + text[1:]
