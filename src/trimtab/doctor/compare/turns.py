"""What happened in two runs, by step: findings, decisions, rollbacks, resumes, the schedule's phases, best and end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from trimtab.doctor.compare.comparison import Side, Turn, Which
from trimtab.doctor.reading.curves import Curve, Phases
from trimtab.events import Advise, Evaluate, Save
from trimtab.runs import format
from trimtab.runs.described import describe_decision
from trimtab.runs.printable import printable
from trimtab.runs.reasons import reason_in_a_line
from trimtab.runs.record import event_to_json

MOST_OF_A_KIND: Final = 12


def turns_of(side: Side, which: Which) -> list[Turn]:
    """The turning points of one run, at most so many of each kind."""
    kept: list[Turn] = []
    for turn in sorted(_turns(side, which), key=lambda one: one.step):
        if sum(one.kind == turn.kind for one in kept) < MOST_OF_A_KIND:
            kept.append(turn)
    return kept


def _turns(side: Side, which: Which) -> Iterator[Turn]:
    case, history = side.case, side.case.history
    for finding in side.diagnosis.findings:
        also = f", which explains {', '.join(finding.consequences)}" if finding.consequences else ""
        yield Turn(which, finding.onset_step, "finding", f"{finding.code} begins{also}: {printable(finding.cause)}")
    for taken in history.decisions:
        if not isinstance(taken.decision, Save | Evaluate | Advise):
            yield Turn(which, taken.step, "decision", describe_decision(event_to_json(taken)))
    for back in history.rollbacks.made:
        told = f"at step {format.count(back.step)} {back.in_words()}: {printable(back.reason)}"
        yield Turn(which, back.to_step, "rollback", told)
    attempt = 0
    for start in history.starts:
        if start.resumed_from is not None and start.attempt != attempt:
            yield Turn(which, start.resumed_from, "resume", f"attempt {start.attempt} goes on from a checkpoint")
        attempt = start.attempt
    for alert in history.alerts:
        yield Turn(which, alert.step, "alert", printable(alert.text, limit=160))
    rates = Curve.of(history.get("learning_rate"))
    if rates is not None and len(rates) > 2:
        phases = Phases.of(history.get("learning_rate"), rates.first_step, rates.last_step)
        if phases.peak_from > rates.first_step + 1:
            told = f"the warm-up ends: the learning rate is at its peak of {format.scientific(phases.peak)}"
            yield Turn(which, phases.peak_from, "schedule", told)
        if phases.decays:
            yield Turn(which, phases.high_until, "schedule", "the learning rate falls below half of its peak")
    validation = Curve.of(case.validation_loss())
    if validation is not None:
        at = int(validation.values.argmin())
        told = f"the best validation loss: {format.decimal(float(validation.values[at]))}"
        yield Turn(which, int(validation.steps[at]), "best", told)
    if (ended := history.ended) is not None and (ended.status != "finished" or ended.step < case.planned_steps):
        told = f"it ended ({ended.status}): {reason_in_a_line(ended.reason)}"
        yield Turn(which, ended.step, "end", printable(told, limit=200))
