"""Two runs beside each other: what each came to, what differs, where their curves part, and why."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from trimtab.doctor.compare.changes import changes_between
from trimtab.doctor.compare.comparison import Change, Comparison, Parting, Reason, Side
from trimtab.doctor.compare.outcomes import metric_of, obstacles_between, outcomes_of
from trimtab.doctor.compare.partings import partings_of
from trimtab.doctor.compare.reasons import ACT, Known, reasons_of
from trimtab.doctor.compare.turns import turns_of
from trimtab.doctor.effects import Effect, RunOutcome, effect_of, outcomes_in, quantile_of_t, seed_spread
from trimtab.doctor.finding import Remedy
from trimtab.errors import TrimtabError
from trimtab.runs import format
from trimtab.runs.directory import RunDirectory

ALONE: Final = 4
"""Differences that are still taken apart one by one."""


def compare(a: Side, b: Side, others: Sequence[RunOutcome] = ()) -> Comparison:
    """What made the difference between `a` and `b`; `others` are further runs of the project, for what is usual."""
    if a.name == b.name:
        a, b = replace(a, name=_with_folder(a)), replace(b, name=_with_folder(b))
    changes = changes_between(a, b)
    obstacles = obstacles_between(a, b, changes)
    metric = metric_of(a.case, b.case, other_tokens=any("bits per byte" in one for one in obstacles))
    outcomes = tuple(outcomes_of(a, b, metric, _noise(others, metric))) if metric is not None else ()
    partings = partings_of(a.case, b.case)
    turns = tuple(sorted([*turns_of(a, "a"), *turns_of(b, "b")], key=lambda turn: (turn.step, turn.side)))
    earlier = _earlier(changes, others)
    known = Known(a, b, changes, outcomes[0] if outcomes else None, partings, turns, earlier)
    reasons = reasons_of(known)
    remedy = _recommendation(known, obstacles, reasons)
    told = tuple(_told(name, effect) for name, effect in earlier.items())
    summary = _summary(known, obstacles, reasons, remedy)
    return Comparison(a, b, obstacles, outcomes, changes, partings, turns, reasons, told, summary, remedy)


def _with_folder(side: Side) -> str:
    """The name of a run with that of its folder, for runs of the same name."""
    path = Path(side.path).resolve()
    return f"{path.parent.name}/{path.name}"


def other_runs(*paths: Path) -> list[RunOutcome]:
    """The further runs beside those at `paths`."""
    taken = {path.resolve() for path in paths}
    rows: list[RunOutcome] = []
    for folder in dict.fromkeys(path.resolve().parent for path in paths if RunDirectory.is_run(path)):
        with contextlib.suppress(TrimtabError, OSError):
            rows += [row for row in outcomes_in(folder)[0] if (folder / row.name).resolve() not in taken]
    return rows


def _noise(others: Sequence[RunOutcome], metric: str | None) -> tuple[float, str] | None:
    """What runs that differ by the seed alone differ by, where the project has some."""
    spread = seed_spread([row for row in others if row.metric == metric])
    if spread is None or spread.freedom < 2:
        return None
    size = quantile_of_t(spread.freedom) * 2**0.5 * spread.deviation
    return size, f"what {spread.num_runs} runs of the project differ by that are equal but for the seed"


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
    if obstacles and (known.outcome is None or "bits_per_byte" not in known.outcome.metric):
        return Remedy(f"judge both alike first: {obstacles[0]}")
    if known.outcome is None:
        return Remedy("log a training or validation loss in both")
    if known.worse is None:
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
    if len(acting) > ALONE:
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
    remedies = [remedy for finding in worse.diagnosis.findings for remedy in finding.remedies]
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
    if one.better is None and (worse := known.worse) is not None:
        failure = known.failure_of(worse)
        told = "" if failure is None else f", {failure.code} from step {format.count(failure.onset_step)} on"
        whose = names[0] if worse == "a" else names[1]
        return f"{whose} failed{told}; their best is the same but for chance: {values}."
    if one.better is None:
        noise = f", not above what chance does ({format.decimal(one.noise)})" if one.noise else ""
        return f"They come to the same: {values}{noise}."
    better = names[0] if one.better == "a" else names[1]
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
