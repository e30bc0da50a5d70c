"""Two runs beside each other: what each came to, what differs, where their curves part, and why."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from trimtab.doctor.compare.changes import changes_between
from trimtab.doctor.compare.comparison import Change, Comparison, Outcome, Parting, Reason, Side, Turn
from trimtab.doctor.compare.outcomes import AT_END, SURE, metric_of, obstacles_between, outcomes_of
from trimtab.doctor.compare.partings import partings_of
from trimtab.doctor.compare.reasons import ACT, Known, reasons_of
from trimtab.doctor.compare.tasks import other_tasks, speeds_of
from trimtab.doctor.compare.turns import turns_of
from trimtab.doctor.effects import Effect, RunOutcome, effect_of, outcomes_in, quantile_of_t, seed_spread
from trimtab.doctor.finding import Remedy
from trimtab.errors import TrimtabError
from trimtab.runs import format
from trimtab.runs.directory import RunDirectory

LEADS: Final = 0.4
"""A first reason that is so sure is tried alone, however many settings differ."""
ALONE: Final = 4
"""Differences that are still taken apart one by one."""


def compare(
    a: Side, b: Side, others: Sequence[RunOutcome] = (), *, themselves: Sequence[RunOutcome] = ()
) -> Comparison:
    """What made the difference between `a` and `b`; `others` are further runs of the project, for what is usual, and
    `themselves` the two as such: with `others` they may tell what a seed does."""
    if a.name == b.name:
        a, b = replace(a, name=_with_folder(a)), replace(b, name=_with_folder(b))
    changes = changes_between(a, b)
    if (others_learned := other_tasks(a, b)) is not None:
        return _of_two_tasks(a, b, changes, others_learned)
    obstacles = obstacles_between(a, b, changes)
    metric = metric_of(a.case, b.case, other_tokens=any("bits per byte" in one for one in obstacles))
    outcomes = tuple(outcomes_of(a, b, metric, _noise([*others, *themselves], metric))) if metric is not None else ()
    if is_chance_alone(changes):  # whatever they differ by is chance
        outcomes = tuple(replace(one, better=None, noise=None, source="") for one in outcomes)
    partings, turns = partings_of(a.case, b.case), _turns(a, b)
    earlier = _earlier(changes, others)
    known = Known(a, b, changes, _leading(outcomes), partings, turns, earlier)
    reasons = reasons_of(known)
    remedy = _recommendation(known, obstacles, reasons)
    told = tuple(_told(name, effect) for name, effect in earlier.items())
    summary = _summary(known, obstacles, reasons, remedy)
    return Comparison(a, b, obstacles, outcomes, changes, partings, turns, reasons, told, summary, remedy)


def _of_two_tasks(a: Side, b: Side, changes: tuple[Change, ...], why: str) -> Comparison:
    """What can be said of runs that learned different things: how fast they were, and what happened in each."""
    speeds = tuple(speeds_of(a, b))
    remedy = Remedy("hold each against a run of its own task")
    told = "; ".join(f"{_speed(one, one.a)} in {a.name} and {_speed(one, one.b)} in {b.name}" for one in speeds)
    fast = (
        f"What can be held against each other is how fast they were: {told}." if told else "Nor did both log a speed."
    )
    summary = f"They are not comparable: {why}. {fast} Next: {remedy.summary}."
    return Comparison(a, b, (why,), speeds, changes, (), _turns(a, b), (), (), summary, remedy)


def _speed(one: Outcome, value: float) -> str:
    return (
        f"{format.decimal(value)} seconds a step" if one.metric == "step_seconds" else f"{value:,.0f} tokens a second"
    )


def _turns(a: Side, b: Side) -> tuple[Turn, ...]:
    return tuple(sorted([*turns_of(a, "a"), *turns_of(b, "b")], key=lambda turn: (turn.step, turn.side)))


def _with_folder(side: Side) -> str:
    """The name of a run with that of its folder, for runs of the same name."""
    path = Path(side.path).resolve()
    return f"{path.parent.name}/{path.name}"


def is_chance_alone(changes: Sequence[Change]) -> bool:
    """Whether the seed differs, and nothing else that acts on the model."""
    kinds = {one.kind for one in changes}
    return "chance" in kinds and not kinds & set(ACT)


def _leading(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The outcome that decides: that of the whole run, or, where the best are the same but for chance, at the end."""
    if not outcomes:
        return None
    at_end = next((one for one in outcomes if one.budget == AT_END and one.better is not None), None)
    return at_end if outcomes[0].better is None and at_end is not None else outcomes[0]


def other_runs(*paths: Path) -> list[RunOutcome]:
    """The further runs beside those at `paths`."""
    return runs_beside(*paths)[0]


def runs_beside(*paths: Path) -> tuple[list[RunOutcome], list[RunOutcome]]:
    """The further runs beside those at `paths`, and those themselves."""
    taken = {path.resolve() for path in paths}
    rows: list[RunOutcome] = []
    themselves: list[RunOutcome] = []
    for folder in dict.fromkeys(path.resolve().parent for path in paths if RunDirectory.is_run(path)):
        with contextlib.suppress(TrimtabError, OSError):
            for row in outcomes_in(folder)[0]:
                (themselves if (folder / row.name).resolve() in taken else rows).append(row)
    return rows, themselves


def _noise(runs: Sequence[RunOutcome], metric: str | None) -> tuple[float, str] | None:
    """What runs that differ by the seed alone differ by, where the project has some; of one pair a rough figure."""
    spread = seed_spread([row for row in runs if row.metric == metric])
    if spread is None or spread.deviation == 0.0:
        return None
    told = f"what {spread.num_runs} runs of the project differ by that are equal but for the seed"
    if spread.freedom < 2:
        return SURE * 2**0.5 * spread.deviation, f"{told}, which is a rough figure"
    return quantile_of_t(spread.freedom) * 2**0.5 * spread.deviation, told


def _earlier(changes: Sequence[Change], others: Sequence[RunOutcome]) -> dict[str, Effect]:
    found = {}
    for change in changes:
        if change.kind in ACT and not change.what.startswith(("facts.", "plan.", "versions.")):
            effect = effect_of(others, change.what, change.a, change.b)
            if effect is not None:
                found[change.what] = effect
    return found


def _told(name: str, effect: Effect) -> str:
    interval = "no interval, there is no repeat"
    if effect.low is not None and effect.high is not None:
        interval = f"95 %: {format.signed(effect.low)} to {format.signed(effect.high)}"
    return (
        f"{name}, {effect.contrast}: {format.signed(effect.change)} ({interval}; {effect.num_runs} other runs, equal "
        "in all else but the seed)"
    )


def _recommendation(known: Known, obstacles: Sequence[str], reasons: Sequence[Reason]) -> Remedy:
    """What to do next: make them comparable, repeat, keep the better one's settings, or take the changes apart."""
    target = known.a.case.target if known.a.case.target == known.b.case.target else "text"
    if known.a.leaks or known.b.leaks:
        return Remedy("judge both on texts that neither was trained on")
    if obstacles and (known.outcome is None or "bits_per_byte" not in known.outcome.metric):
        return Remedy(f"judge both alike first: {obstacles[0]}")
    if known.outcome is None:
        return Remedy("log a training or validation loss in both")
    if is_chance_alone(known.changes):
        size = format.decimal(abs(known.outcome.a - known.outcome.b))
        return Remedy(
            f"take no difference of this size ({size}) for the work of a setting: it is what a seed does here"
        )
    if known.worse is None:
        if known.outcome.a == known.outcome.b and all(one.step is None for one in known.partings):
            return Remedy("nothing: these are the same numbers twice, as the same seed gives them, or the same log")
        return Remedy("repeat both with other seeds: this difference is not above what chance does")
    better, worse = (known.a, known.b) if known.worse == "b" else (known.b, known.a)
    acting = [one for one in known.changes if one.kind in ACT and not one.what.startswith(("facts.", "plan."))]
    if (remedy := _after_an_event(known, worse, reasons)) is not None:
        return remedy
    if not acting:
        return Remedy(f"keep {better.name}; repeat it with another seed to see what chance does")
    if len(acting) == 1 and any(one.kind == "chance" for one in known.changes):
        remedy = Remedy(
            f"repeat {worse.name} with the seed of {better.name}, to part {acting[0].what} from chance",
            target,
            {one.what: _of(known, one, better) for one in known.changes if one.kind == "chance"},
        )
        return remedy if target == "trimtab" else Remedy(remedy.summary)
    if len(acting) == 1:
        config = {acting[0].what: _of(known, acting[0], better)}
        return Remedy(f"keep {acting[0].what} as in {better.name}", target, config if target == "trimtab" else {})
    first = next((name for reason in reasons for name in reason.what if name in [one.what for one in acting]), None)
    change = next(one for one in acting if one.what == first) if first else acting[0]
    others = len(acting) - 1
    if len(acting) > ALONE and not (reasons and reasons[0].what == (change.what,) and reasons[0].confidence >= LEADS):
        told = (
            f"{len(acting)} settings differ, so that none can be named: train {worse.name} again with half of them as "
            f"in {better.name}, and go on with the half that makes the difference"
        )
        return Remedy(told)
    told = (
        f"{len(acting)} settings differ, so that none can be named alone: train {worse.name} again with only "
        f"{change.what} as in {better.name}, then the other{'s' if others > 1 else ''}"
    )
    return Remedy(told, target, {change.what: _of(known, change, better)} if target == "trimtab" else {})


def _after_an_event(known: Known, worse: Side, reasons: Sequence[Reason]) -> Remedy | None:
    """What the doctor proposes for the worse run, where something that happened in it leads."""
    which = "a" if worse is known.a else "b"
    happened = {turn.text for turn in known.turns if turn.side == which}
    if not reasons or not happened & set(reasons[0].what):
        return None
    told = [one for one in worse.diagnosis.findings if reasons[0].what[0].startswith(f"{one.code} ")]
    remedies = [remedy for finding in told or worse.diagnosis.findings for remedy in finding.remedies]
    if remedies:
        return replace(remedies[0], summary=f"in {worse.name}, {remedies[0].summary}")
    return Remedy(f"look at what happened in {worse.name}: {reasons[0].what[0]}")


def _of(known: Known, change: Change, side: Side) -> Any:
    return change.a if side is known.a else change.b


def _summary(known: Known, obstacles: Sequence[str], reasons: Sequence[Reason], remedy: Remedy) -> str:
    return " ".join([_which(known, obstacles), _why(known, reasons), f"Next: {remedy.summary}."])


def _which(known: Known, obstacles: Sequence[str]) -> str:
    one, names = known.outcome, (known.a.name, known.b.name)
    if one is None:
        return f"{names[0]} and {names[1]} have no metric in common by which to judge them."
    values = f"{one.metric} {format.decimal(one.a)} in {names[0]} and {format.decimal(one.b)} in {names[1]}"
    if obstacles:
        return f"They cannot be held against each other as they are ({obstacles[0]}); {values}."
    if is_chance_alone(known.changes):
        return f"They differ in the seed alone: {values}."
    if one.better is None and (worse := known.worse) is not None:
        failure = known.failure_of(worse)
        told = "" if failure is None else f", {failure.code} from step {format.count(failure.onset_step)} on"
        whose = names[0] if worse == "a" else names[1]
        return f"{whose} failed{told}; their best is the same but for chance: {values}."
    if one.better is None:
        noise = f", not above what chance does ({format.decimal(one.noise)})" if one.noise else ""
        return f"They come to the same: {values}{noise}."
    better = names[0] if one.better == "a" else names[1]
    if one.budget == AT_END:
        return f"{better} is better in the end: {values}; their best are the same but for chance."
    sure = "" if one.noise is not None else "; how much of it is chance is not known"
    return f"{better} is better: {values}{sure}."


def _why(known: Known, reasons: Sequence[Reason]) -> str:
    where = _where(known.partings)
    if not reasons:
        acting = [one for one in known.changes if one.kind in ACT]
        if not acting:
            return f"Nothing that acts on the model differs; {where}."
        return f"{len(acting)} of the differences may act on the model; {where}."
    lead = reasons[0]
    if is_chance_alone(known.changes):
        return f"What they differ by is one draw of what chance does; {where}."
    sure = "almost surely" if lead.confidence >= 0.9 else "probably" if lead.confidence >= 0.6 else "possibly"
    return f"What made the difference is {sure} this: {lead.text.partition('; then ')[0]}; {where}."


def _where(partings: Sequence[Parting]) -> str:
    losses = [one for one in partings if one.metric.endswith("/loss")]
    if not losses:
        return "where their losses part cannot be seen, for want of steps in common"
    one = next((one for one in losses if one.step is not None), losses[0])
    name = "training losses" if one.metric == "train/loss" else "validation losses"
    if one.step is None:
        return f"their {name} do not part for good"
    same = f", after being the same to the bit up to step {format.count(one.same_until)}" if one.same_until else ""
    if one.earliest is not None and one.earliest < one.step:
        return f"their {name} part between steps {format.count(one.earliest)} and {format.count(one.step)}{same}"
    return f"their {name} part at step {format.count(one.step)}{same}"
