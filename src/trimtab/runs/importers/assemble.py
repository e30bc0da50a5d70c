"""From foreign columns to a history: the values of every column in our unit, at their steps, in the order of steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import DataError
from trimtab.events import RunStarted
from trimtab.runs import format
from trimtab.runs.history import History
from trimtab.runs.importers.axis import Axis, find_axis, find_epochs, order_of, steps_of_rows
from trimtab.runs.importers.cells import Floats, Rows
from trimtab.runs.importers.clocks import begins_anew
from trimtab.runs.importers.plan import NAME_LIMIT, Plan, about_columns, asked_for, plan_of
from trimtab.runs.importers.slices import add_gap
from trimtab.runs.importers.sums import add_sums
from trimtab.runs.importers.table import BUDGET_VALUES, TORN, Source, Table
from trimtab.runs.importers.units import of_each_step, once_each, to_ours
from trimtab.runs.printable import printable
from trimtab.runs.unnamed_losses import SEVERAL

_ROWS_WITHOUT_NUMBERS: Final = 200_000
"""After so many nothing more is hoped for."""
LARGEST: Final = 1e100
"""Greater numbers count as infinite, so that sums of the others are finite."""


@dataclass(slots=True)
class Assembled:
    """A history, and how it came about."""

    history: History
    names: dict[str, str]
    unused: list[str]
    notes: list[str]
    axis: Axis
    num_epochs: float | None = None
    columns: list[str] = field(default_factory=list)


def assemble(source: Source, mapping: Mapping[str, str], path: str) -> Assembled:
    """Read all blocks of `source` into a history.

    Raises: DataError when there are no numbers; UsageError when `mapping` names what is not there.
    """
    notes: list[str] = []
    tables = _tables(source)
    table = next(tables)
    asked = asked_for(table, source, mapping, path)
    places = find_axis(table, source.short, asked).name, find_epochs(table, source.short, asked)
    _leave_out_torn(table, source, places)
    plan = plan_of(table, source, asked, notes)
    known = any(not one.ours.startswith("user/") for one in plan.meanings.values())
    if not plan.meanings or (table.num_rows < 2 and not known):
        what = "it has a header and no numbers" if table.columns or table.passed_over else "it holds no numbers"
        raise DataError(
            f"{path}: {what} that could be read as a log" + "".join(f"; {note}" for note in source.notes[:1]),
            hint="a log has one row or object a step, with names such as step, loss, val_loss, lr",
        )
    if plan.sums:
        source.facts |= {"task": SEVERAL, "loss_parts": list(plan.sums["train/loss"][1])}
    history = History()
    source.resumed_at += begins_anew(table, source.short, plan.axis, plan.epoch)
    first = _steps_and_order(table, plan, notes)
    guesses: dict[str, str] = {}
    last = _add(history, table, plan, *first, guesses)
    notes += guesses.values()
    followed = 0
    for later in tables:
        _leave_out_torn(later, source, places)
        last, dropped = _follow(history, later, plan, last)
        followed += dropped
    if followed:
        notes.append(
            f"in the later part of this long file {format.counted(followed, 'row')} with steps that go back: left out"
        )
    if plan.axis.kind == "step":
        _add_resumes(history, source)
    add_gap(history)
    num_seen = history.last_step
    if not num_seen and not history.series:
        raise DataError(f"{path}: no row has both a step and a number")
    names = {printable(name, limit=NAME_LIMIT): one.ours for name, one in plan.meanings.items()}
    unused = [name for name in table.columns if name not in plan.meanings and name != plan.axis.name]
    unused += [name for name in (*sorted(table.passed_over), *source.left_out) if name not in plan.meanings]
    notes += about_columns(table, plan)
    return Assembled(
        history,
        names,
        [printable(name, limit=NAME_LIMIT) for name in dict.fromkeys(unused)],
        [*source.notes, *notes],
        plan.axis,
        _num_epochs(table, plan.epoch),
        [source.short.get(name, name) for name in table.columns],
    )


def _tables(source: Source) -> Iterator[Table]:
    """The rows in parts of bounded size; the first is as large as it may be, and most files have no second."""
    table, row = Table(), 0
    given = False
    for block in source.blocks:
        table.add(block)
        row += block.num_rows
        if row > _ROWS_WITHOUT_NUMBERS and not given and not table.num_values:
            break
        if table.num_values >= (BUDGET_VALUES if not given else BUDGET_VALUES // 10):
            yield table
            table, given = Table(first_row=row), True
    if not given or table.num_rows:
        yield table


def _leave_out_torn(table: Table, source: Source, places: Sequence[str | None]) -> None:
    """Take the last row away where its step or epoch, `places`, was cut in writing: it is gone, or back behind others.

    A number with fewer digits than it had would look like a resume, or like another run.
    """
    if source.cut_in is None or source.cut_in not in places or source.cut_in not in table.columns:
        return
    rows, values = table.column(source.cut_in)
    if rows[-1] < table.num_rows - 1 or (len(values) > 1 and values[-1] < values[-2]):
        table.drop_last_row()
        source.cut_in = None
        source.notes.append(TORN)


def _steps_and_order(table: Table, plan: Plan, notes: list[str]) -> tuple[Rows, NDArray[np.int64], tuple[int, ...]]:
    steps = steps_of_rows(table, plan.axis, notes)
    regular = max(
        plan.meanings, key=lambda name: (plan.meanings[name].ours == "train/loss", len(table.column(name)[0]))
    )
    epochs: Floats | None = None
    if plan.epoch is not None and plan.axis.kind == "step":
        rows, values = table.column(plan.epoch)
        epochs = values if len(rows) == table.num_rows else None
    order = order_of(steps, table.column(regular)[0], epochs, notes)
    return order.rows, order.steps, order.resumed_at


def _add(
    history: History,
    table: Table,
    plan: Plan,
    kept: Rows,
    steps: NDArray[np.int64],
    resumed_at: tuple[int, ...],
    guesses: dict[str, str],
) -> int:
    """Add the kept rows of a table; the last step."""
    place = np.full(table.num_rows, -1, np.int64)
    place[kept] = np.arange(len(kept))
    judged = _judged_rows(table, plan)
    layers: dict[str, tuple[Rows, Floats]] = {}
    for name, one in plan.meanings.items():
        if name not in table.columns:
            continue
        rows, values = table.column(name)
        if name in plan.padded:
            there = ~np.isnan(values)
            rows, values = rows[there], values[there]
        at = place[rows]
        there = at >= 0
        if judged is not None and one.ours.startswith("validation/"):
            there &= np.isin(rows, judged)
        at, values = at[there], values[there]
        if len(kept) > 1 and len(at) > 1 and (np.diff(at) < 0).any():
            order = np.argsort(at, kind="stable")
            at, values = at[order], values[order]
        if one.ours.startswith("layer/"):
            layers[one.ours] = at, values
            continue
        values, guess = to_ours(printable(name, limit=60), values, one, plan.known_step_seconds)
        if guess is not None:
            guesses[name] = guess
        values = np.where(np.abs(values) > LARGEST, np.copysign(np.inf, values), values)
        where, values = _one_a_step(steps[at], values)
        if one.ours == "skipped":
            values = of_each_step(values, where)
        history.add(one.ours, where, values)
    for step in resumed_at:
        history.starts.append(RunStarted(step, len(history.starts) + 2, len(history.starts) + 1, step, 0))
    if layers:
        _add_layers(history, layers, steps)
    return int(steps[-1]) if len(steps) else 0


def _judged_rows(table: Table, plan: Plan) -> Rows | None:
    """The rows of evaluations, where later rows say them again; None where they do not."""
    name = next((name for name, one in plan.meanings.items() if one.ours == "validation/loss"), None)
    if name is None or name not in table.columns:
        return None
    rows, values = table.column(name)
    begins = once_each(values)
    return None if begins is None else rows[begins]


def _add_resumes(history: History, source: Source) -> None:
    """Add the attempts that lines of the log tell of, but for those that steps which go back have told already."""
    known = {start.resumed_from for start in history.starts}
    for step in sorted(set(source.resumed_at) - known):
        if not any(abs(step - (one or 0)) <= 1 for one in known) and step <= history.last_step:
            history.starts.append(RunStarted(step, len(history.starts) + 2, len(history.starts) + 1, step, 0))


def _one_a_step(steps: NDArray[np.int64], values: Floats) -> tuple[NDArray[np.int64], Floats]:
    """The mean of the values that belong to one step."""
    if len(steps) < 2 or (np.diff(steps) > 0).all():
        return steps, values
    unique, begins, counts = np.unique(steps, return_index=True, return_counts=True)
    return unique, np.add.reduceat(values, begins) / counts


def _add_layers(history: History, layers: Mapping[str, tuple[Rows, Floats]], steps: NDArray[np.int64]) -> None:
    """A window for each step: in tables of one value in a row each layer has a row of its own."""
    ends = np.unique(np.concatenate([steps[at] for at, _ in layers.values()]))
    values_WL = np.full((len(ends), len(layers)), np.nan)
    for column, (at, values) in enumerate(layers.values()):
        values_WL[np.searchsorted(ends, steps[at]), column] = values
    # As of a run of ours: what is dead is told by examinations, the rest by windows.
    dead_L = np.array([name.endswith("/dead_fraction") for name in layers])
    for kept_L, target in ((~dead_L, history.layers), (dead_L, history.examined)):
        names = tuple(itertools.compress(layers, kept_L.tolist()))
        for end, values_L in zip(ends.tolist(), values_WL[:, kept_L], strict=True):
            if np.isfinite(values_L).any():
                target.append(end, names, values_L)


def _follow(history: History, table: Table, plan: Plan, last: int) -> tuple[int, int]:
    """Add a later part of a long file, as far as its steps go on; the last step, and how many rows were left out."""
    add_sums(table, plan.sums)
    steps = steps_of_rows(table, plan.axis, [])
    highest = np.maximum.accumulate(np.concatenate([[last], steps[:-1]]))
    kept = np.flatnonzero(steps >= highest)
    newest = _add(history, table, plan, kept, steps[kept], (), {}) if len(kept) else last
    return max(last, newest), table.num_rows - len(kept)


def _num_epochs(table: Table, name: str | None) -> float | None:
    """Epochs that were begun; many trainers count the first as 0."""
    if name is None or name not in table.columns:
        return None
    values = table.column(name)[1]
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    counted_from_0 = values.min() == 0 and bool((values == np.rint(values)).all())
    return float(values.max()) + counted_from_0
