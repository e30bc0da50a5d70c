"""What becomes of the columns of a foreign table: each gets its meaning, by its name or as the user asks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from trimtab.errors import UsageError
from trimtab.runs.importers.axis import Axis, find_axis, find_epochs
from trimtab.runs.importers.clocks import step_seconds, time_of_steps
from trimtab.runs.importers.names import Meaning, meaning, words
from trimtab.runs.importers.slices import SLICE, training_slice
from trimtab.runs.importers.sums import about_sums, add_sums, sums_in
from trimtab.runs.importers.table import MAX_COLUMNS, Source, Table
from trimtab.runs.importers.units import without_padding
from trimtab.runs.importers.vocabulary import EPOCHS, STEPS, TIMES
from trimtab.runs.metrics import METRICS
from trimtab.runs.printable import printable
from trimtab.runs.unnamed_losses import unnamed_losses

AXES: Final = ("step", "epoch")
_FAMILIES: Final = re.compile(r"train/loss/.+|validation/[^/]+/.+|user/.+")
NAME_LIMIT: Final = 120


@dataclass(slots=True)
class Plan:
    """What becomes of the columns, decided on the first rows and kept for the rest."""

    axis: Axis
    epoch: str | None
    meanings: dict[str, Meaning]
    known_step_seconds: float | None = None
    padded: set[str] = field(default_factory=set)
    sums: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    """Losses of ours to the column that is added for them, and the columns that it is the sum of."""


def check_mapping(mapping: Mapping[str, str]) -> None:
    """Raises: UsageError for a name that is none of ours, with the nearest."""
    plain = [name for name in METRICS if "<" not in name]
    for theirs, ours in mapping.items():
        if ours not in AXES and ours not in plain and not _FAMILIES.fullmatch(ours):
            near = _nearest(ours, [*plain, *AXES])
            raise UsageError(
                f"--map {printable(theirs, limit=60)}={printable(ours, limit=60)}: trimtab has no metric "
                f"{printable(ours, limit=60)!r}",
                hint=near or "a metric of your own is user/<name>; docs/reference/metrics.md lists the others",
            )
        if list(mapping.values()).count(ours) > 1:
            both = " and ".join(printable(name, limit=60) for name, one in mapping.items() if one == ours)
            raise UsageError(f"--map: two columns are mapped to {ours}: {both}", hint="give one column a metric")


def plan_of(table: Table, source: Source, asked: Mapping[str, str], notes: list[str]) -> Plan:
    """The axis of `table`, and the steps and epochs that were planned; what a reader should know goes to `notes`."""
    axis = find_axis(table, source.short, asked)
    if axis.kind == "epoch":
        notes.append("there is no step in it: epochs are used as steps")
    elif axis.kind == "row":
        notes.append("there is no step in it: its rows are counted as steps")
    candidates: dict[str, list[tuple[bool, int, int, str, Meaning]]] = {}
    meanings: dict[str, Meaning] = {}
    left_out, of_steps = set(source.left_out), time_of_steps(table, source.short)
    for name in table.columns:
        short = source.short.get(name, name)
        if name == axis.name or (name in left_out and name not in asked):
            continue
        plain = words(short)
        if name in asked:
            named = Meaning(asked[name], factor=1.0)
            if (known := meaning(short)) is not None and known.ours == named.ours:
                named = known
            meanings[name] = named
        elif name == of_steps:
            candidates.setdefault("step_seconds", []).append((False, 999, 0, name, Meaning("step_seconds", 999, 1.0)))
        elif plain in STEPS or plain in EPOCHS or plain in TIMES:
            continue
        elif (known := meaning(short)) is None:
            meanings[name] = _own(short)
        else:
            test = known.side == "test"
            rows = len(table.column(name)[0])
            candidates.setdefault(known.ours, []).append((test, known.rank, -rows, name, known))
    _of_evaluations(candidates, notes)
    taken = set(asked.values())
    for ours, found in candidates.items():
        found.sort(key=lambda one: one[:3])
        for index, (test, _, _, name, known) in enumerate(found):
            further = f"validation/test/{ours.rpartition('/')[2]}"
            if ours.startswith("layer/") or (index == 0 and ours not in taken):
                meanings[name] = known
                if test:
                    notes.append(f"{printable(name, limit=60)} is taken for {ours}: there is no other")
            elif test and not found[0][0] and further not in taken:
                meanings[name] = Meaning(further, side="test")
                taken.add(further)
            else:
                meanings[name] = _own(source.short.get(name, name))
    if (beside := training_slice(table, source, meanings)) is not None and beside not in asked:
        meanings[beside] = Meaning(SLICE, side="train")
    _make_distinct(meanings)
    sums = sums_in(table, source, meanings)
    add_sums(table, sums)
    meanings |= {name: Meaning(ours) for ours, (name, _) in sums.items()}
    plan = Plan(axis, find_epochs(table, source.short, asked), meanings, sums=sums)
    for name, one in meanings.items():
        if not one.ours.startswith("layer/") and without_padding(table.column(name)[1]) is not None:
            plan.padded.add(name)
    plan.known_step_seconds = step_seconds(table, source.short, axis)
    return plan


def _of_evaluations(candidates: dict[str, list[tuple[bool, int, int, str, Meaning]]], notes: list[str]) -> None:
    """Beside losses that both say whose they are, an accuracy that does not is of the evaluation, as in notebooks of
    Hugging Face's Trainer: what is measured of a model is measured there."""
    sides = {one[4].side for ours in ("train/loss", "validation/loss") for one in candidates.get(ours, ())}
    found = candidates.get("train/accuracy", ())
    if None in sides or len(sides) < 2 or "validation/accuracy" in candidates or any(one[4].side for one in found):
        return
    if found:
        candidates["validation/accuracy"] = [
            (*one[:4], replace(one[4], ours="validation/accuracy")) for one in candidates.pop("train/accuracy")
        ]
        notes.append(f"{printable(found[0][3], limit=60)} does not say whose it is: it is taken for the evaluation's")


def _make_distinct(meanings: dict[str, Meaning]) -> None:
    """Number names of ours that two columns came to, such as names that differ in what cannot be printed."""
    taken: set[str] = set()
    for name, one in meanings.items():
        ours, number = one.ours, 1
        while ours in taken:
            ours, number = f"{one.ours}.{number}", number + 1
        taken.add(ours)
        if ours != one.ours:
            meanings[name] = replace(one, ours=ours)


def _own(name: str) -> Meaning:
    return Meaning("user/" + printable(name, limit=NAME_LIMIT).removeprefix("user/"))


def asked_for(table: Table, source: Source, mapping: Mapping[str, str], path: str) -> dict[str, str]:
    """`mapping` by the columns' own names. Raises: UsageError for a column that is not there."""
    asked: dict[str, str] = {}
    for theirs, ours in mapping.items():
        if theirs in table.columns:
            asked[theirs] = ours
            continue
        found = [name for name, short in source.short.items() if short == theirs and name in table.columns]
        if not found:
            near = _nearest(theirs, list(table.columns)[:500])
            raise UsageError(
                f"{path}: there is no column {printable(theirs, limit=60)!r} with numbers to map to {ours}",
                hint=near or "it has " + ", ".join(printable(name, limit=40) for name in list(table.columns)[:12]),
            )
        asked[found[0]] = ours
    return asked


def about_columns(table: Table, plan: Plan) -> Iterator[str]:
    """What is to be said of how they were read."""
    spelled = [name for name in plan.meanings if name in table.spelled]
    if spelled:
        yield f"numbers are written as text in {_listed(spelled)}: they were read as numbers"
    if plan.padded:
        yield f"NaN in {_listed(list(plan.padded))} stands where nothing was measured: it was left out"
    yield from about_sums(plan.sums)
    loss = [name for name, one in plan.meanings.items() if one.ours == "train/loss"]
    if any(name in table.nulls for name in loss):
        yield f"null in {_listed(loss)} is taken for not measured; some writers put it for NaN"
    known = {one.ours for one in plan.meanings.values()}
    others = [name for name, one in plan.meanings.items() if one.ours.startswith("user/")]
    like = {ours: theirs for theirs, ours in unnamed_losses(others).items() if ours not in known}
    if not loss and "train/loss" not in like:
        yield "no column is known for a training loss: name it with --map <column>=train/loss"
    for ours, theirs in like.items():
        name = printable(theirs, limit=60)
        yield f"no column is known for {ours}, and {name} looks like it: if it is, --map {name}={ours}"
    if len(table.columns) >= MAX_COLUMNS:
        yield f"only the first {MAX_COLUMNS:,} columns were read"


def _listed(names: list[str]) -> str:
    shown = ", ".join(printable(name, limit=60) for name in names[:4])
    return shown + (" …" if len(names) > 4 else "")


def _nearest(name: str, names: list[str]) -> str:
    """A remark on what was most likely meant."""
    from trimtab.config.nearest import did_you_mean, nearest_names  # loads every model of the configuration

    return did_you_mean(nearest_names(name, names)) or ""
