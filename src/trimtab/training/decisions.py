"""Which of the decisions asked for at one boundary are taken, and why the others are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from trimtab.config import ADJUSTABLE
from trimtab.events import Adjust, Decision, Evaluate, Rollback, Save
from trimtab.training.calendar import Calendar

D = TypeVar("D", bound=Decision)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One decision, and what comes of it."""

    controller: str
    decision: Decision
    taken: bool
    note: str
    """Why it cannot be taken, when that lies in the decision itself."""


def weigh(
    asked: Sequence[tuple[str, Decision]],
    *,
    step: int,
    can_roll_back: Callable[[int], bool],
    cannot_adjust: Callable[[str], str],
    evaluated: bool,
) -> list[Verdict]:
    """A verdict on each decision, in the order asked; `cannot_adjust` says why a name has no effect in this run.

    Of two rollbacks, and of two controllers' adjustments of one thing, the first wins; where several windows are told
    at one boundary, a controller may go on from its own adjustment. A rollback overrules evaluations and saves; so does
    an evaluation that has just ended (`evaluated`) another one.
    """
    notes = [_impossible(decision, step, can_roll_back, cannot_adjust) for _, decision in asked]
    verdicts: list[Verdict] = []
    goes_back = any(isinstance(d, Rollback) and not note for (_, d), note in zip(asked, notes, strict=True))
    for (controller, decision), note in zip(asked, notes, strict=True):
        earlier = [verdict.decision for verdict in verdicts if verdict.taken]
        match decision:
            case Rollback():
                overruled = any(isinstance(other, Rollback) for other in earlier)
            case Evaluate():
                overruled = goes_back or evaluated
            case Save():
                overruled = goes_back
            case Adjust():
                overruled = any(
                    isinstance(verdict.decision, Adjust)
                    and verdict.decision.name == decision.name
                    and verdict.controller != controller
                    for verdict in verdicts
                    if verdict.taken
                )
            case _:
                overruled = False
        verdicts.append(Verdict(controller, decision, not (overruled or note), note))
    return verdicts


def _impossible(
    decision: Decision, step: int, can_roll_back: Callable[[int], bool], cannot_adjust: Callable[[str], str]
) -> str:
    match decision:
        case Rollback():
            if any(not 1 <= first <= last <= step for first, last in decision.exclude_steps):
                return f"steps to leave out must lie between 1 and {step}"
            if not can_roll_back(decision.onset_step):
                return f"no whole checkpoint lies before step {decision.onset_step}"
            if decision.learning_rate is not None:
                return _impossible(
                    Adjust("", "learning_rate", decision.learning_rate), step, can_roll_back, cannot_adjust
                )
        case Adjust():
            entry = ADJUSTABLE.get(decision.name)
            if entry is None:
                return f"{decision.name!r} cannot be adjusted; {', '.join(ADJUSTABLE)} can"
            if not entry.low <= decision.value <= entry.high:
                return f"{decision.value:g} is outside [{entry.low:g}, {entry.high:g}]"
            return cannot_adjust(decision.name)
    return ""


def reasons_to_save(
    asked: Sequence[tuple[str, Decision]], step: int, calendar: Calendar, *, back_at: int | None, stops: bool
) -> list[str]:
    """Why a boundary ends with a save; nothing where it does not. `back_at` is the step that the run went back to."""
    reasons = [decision.reason for _, decision in of_kind(asked, Save)]
    if back_at is not None:
        # Saved at once, so that a kill from here on resumes with what the rollback left out.
        reasons = [f"rolled back to step {back_at}"]
    elif calendar.saves(step):
        reasons.append("end of the run" if step == calendar.total_steps else "scheduled")
    return [*reasons, "stopping"] if stops else reasons


def of_kind(asked: Sequence[tuple[str, Decision]], kind: type[D]) -> list[tuple[str, D]]:
    """Those of one kind, with who asked for them."""
    return [(who, decision) for who, decision in asked if isinstance(decision, kind)]


def adjustments_of(taken: Sequence[tuple[str, Decision]]) -> list[tuple[str, Adjust]]:
    """All that is to be adjusted, with who asked for it: by an Adjust, or along with a Rollback."""
    adjustments: list[tuple[str, Adjust]] = []
    for who, decision in taken:
        if isinstance(decision, Adjust):
            adjustments.append((who, decision))
        elif isinstance(decision, Rollback) and decision.learning_rate is not None:
            adjustments.append((who, Adjust(decision.reason, "learning_rate", decision.learning_rate)))
    return adjustments
