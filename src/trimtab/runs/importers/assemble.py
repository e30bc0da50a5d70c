"""From foreign columns to a history: every column gets its meaning, its unit and its steps."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import DataError, UsageError
from trimtab.events import RunStarted
from trimtab.runs import format
from trimtab.runs.history import History
from trimtab.runs.importers.axis import Axis, find_axis, find_epochs, order_of, steps_of_rows
from trimtab.runs.importers.cells import Floats, Rows
from trimtab.runs.importers.names import EPOCHS, STEPS, TIMES, Meaning, meaning, words
from trimtab.runs.importers.slices import SLICE, add_gap, training_slice
from trimtab.runs.importers.table import BUDGET_VALUES, TORN, Source, Table
from trimtab.runs.importers.units import to_ours, without_padding
from trimtab.runs.metrics import METRICS
from trimtab.runs.printable import printable
from trimtab.runs.unnamed_losses import unnamed_losses

AXES: Final = ("step", "epoch")
_FAMILIES: Final = re.compile(r"train/loss/.+|validation/[^/]+/.+|user/.+")
_NAME_LIMIT: Final = 120
_ROWS_WITHOUT_NUMBERS: Final = 200_000
"""After so many nothing more is hoped for."""
FEWEST_ROWS: Final = 24
"""That a clock is read of, to see where it begins anew."""
MOST_RESUMES: Final = 3
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


@dataclass(slots=True)
class _Plan:
    """What becomes of the columns, decided on the first rows and kept for the rest."""

    axis: Axis
    epoch: str | None
    meanings: dict[str, Meaning]
    known_step_seconds: float | None = None
    padded: set[str] = field(default_factory=set)


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


def assemble(source: Source, mapping: Mapping[str, str], path: str) -> Assembled:
    """Read all blocks of `source` into a history.

    Raises: DataError when there are no numbers; UsageError when `mapping` names what is not there.
    """
    notes: list[str] = []
    tables = _tables(source)
    table = next(tables)
    asked = _asked(table, source, mapping, path)
    places = find_axis(table, source.short, asked).name, find_epochs(table, source.short, asked)
    _leave_out_torn(table, source, places)
    plan = _plan(table, source, asked, notes)
    known = any(not one.ours.startswith("user/") for one in plan.meanings.values())
    if not plan.meanings or (table.num_rows < 2 and not known):
        what = "it has a header and no numbers" if table.columns or table.passed_over else "it holds no numbers"
        raise DataError(
            f"{path}: {what} that could be read as a log" + "".join(f"; {note}" for note in source.notes[:1]),
            hint="a log has one row or object a step, with names such as step, loss, val_loss, lr",
        )
    history = History()
    source.resumed_at += _clock_begins_anew(table, source.short, plan)
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
    names = {printable(name, limit=_NAME_LIMIT): one.ours for name, one in plan.meanings.items()}
    unused = [name for name in table.columns if name not in plan.meanings and name != plan.axis.name]
    unused += [name for name in (*table.passed_over, *source.left_out) if name not in plan.meanings]
    notes += _about_columns(table, plan)
    return Assembled(
        history,
        names,
        [printable(name, limit=_NAME_LIMIT) for name in dict.fromkeys(unused)],
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


def _asked(table: Table, source: Source, mapping: Mapping[str, str], path: str) -> dict[str, str]:
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


def _plan(table: Table, source: Source, asked: Mapping[str, str], notes: list[str]) -> _Plan:
    axis = find_axis(table, source.short, asked)
    if axis.kind == "epoch":
        notes.append("there is no step in it: epochs are used as steps")
    elif axis.kind == "row":
        notes.append("there is no step in it: its rows are counted as steps")
    candidates: dict[str, list[tuple[bool, int, int, str, Meaning]]] = {}
    meanings: dict[str, Meaning] = {}
    left_out = set(source.left_out)
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
        elif plain in STEPS or plain in EPOCHS or plain in TIMES:
            continue
        elif (known := meaning(short)) is None:
            meanings[name] = _own(short)
        else:
            test = known.side == "test"
            rows = len(table.column(name)[0])
            candidates.setdefault(known.ours, []).append((test, known.rank, -rows, name, known))
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
    plan = _Plan(axis, find_epochs(table, source.short, asked), meanings)
    for name, one in meanings.items():
        if not one.ours.startswith("layer/") and without_padding(table.column(name)[1]) is not None:
            plan.padded.add(name)
    plan.known_step_seconds = _step_seconds_by_clock(table, source.short, axis)
    return plan


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
    return Meaning("user/" + printable(name, limit=_NAME_LIMIT).removeprefix("user/"))


def _steps_and_order(table: Table, plan: _Plan, notes: list[str]) -> tuple[Rows, NDArray[np.int64], tuple[int, ...]]:
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
    plan: _Plan,
    kept: Rows,
    steps: NDArray[np.int64],
    resumed_at: tuple[int, ...],
    guesses: dict[str, str],
) -> int:
    """Add the kept rows of a table; the last step."""
    place = np.full(table.num_rows, -1, np.int64)
    place[kept] = np.arange(len(kept))
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
        history.add(one.ours, where, values)
    for step in resumed_at:
        history.starts.append(RunStarted(step, len(history.starts) + 2, len(history.starts) + 1, step, 0))
    if layers:
        _add_layers(history, layers, steps)
    return int(steps[-1]) if len(steps) else 0


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


def _follow(history: History, table: Table, plan: _Plan, last: int) -> tuple[int, int]:
    """Add a later part of a long file, as far as its steps go on; the last step, and how many rows were left out."""
    steps = steps_of_rows(table, plan.axis, [])
    highest = np.maximum.accumulate(np.concatenate([[last], steps[:-1]]))
    kept = np.flatnonzero(steps >= highest)
    newest = _add(history, table, plan, kept, steps[kept], (), {}) if len(kept) else last
    return max(last, newest), table.num_rows - len(kept)


def _step_seconds_by_clock(table: Table, short: Mapping[str, str], axis: Axis) -> float | None:
    """The usual seconds between two steps by the log's own clock, if it has one."""
    clock = next((name for name in table.columns if words(short.get(name, name)) in TIMES), None)
    if clock is None or axis.name is None or axis.name not in table.columns:
        return None
    rows, seconds = table.column(clock)
    step_rows, steps = table.column(axis.name)
    both, left, right = np.intersect1d(rows, step_rows, assume_unique=True, return_indices=True)
    if len(both) < 4:
        return None
    passed, done = np.diff(seconds[left]), np.diff(steps[right])
    good = (done > 0) & (passed > 0) & np.isfinite(passed)
    return float(np.median(passed[good] / done[good])) if good.sum() >= 3 else None


def _clock_begins_anew(table: Table, short: Mapping[str, str], plan: _Plan) -> list[int]:
    """The steps at which the time since the start of a process falls behind that of earlier rows: a later process.

    None where it does so often, or with the epochs: then it is the time of something shorter.
    """
    clock = next((name for name in table.columns if words(short.get(name, name)) in TIMES), None)
    if clock is None or plan.axis.name is None or plan.axis.name not in table.columns:
        return []
    rows, seconds = table.column(clock)
    step_rows, steps = table.column(plan.axis.name)
    both, left, right = np.intersect1d(rows, step_rows, assume_unique=True, return_indices=True)
    seconds, steps = seconds[left], steps[right]
    if len(both) < FEWEST_ROWS or not (np.diff(steps) >= 0).all():
        return []
    back = np.flatnonzero(np.diff(seconds) < 0) + 1
    if not 0 < len(back) <= MOST_RESUMES:
        return []
    if plan.epoch is not None:
        epoch_rows, epochs = table.column(plan.epoch)
        before, there = (np.floor(np.interp(both[at], epoch_rows, epochs)) for at in (back - 1, back))
        back = back[before == there]
    return [int(step) for step in steps[back]]


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


def _about_columns(table: Table, plan: _Plan) -> Iterator[str]:
    spelled = [name for name in plan.meanings if name in table.spelled]
    if spelled:
        yield f"numbers are written as text in {_listed(spelled)}: they were read as numbers"
    if plan.padded:
        yield f"NaN in {_listed(list(plan.padded))} stands where nothing was measured: it was left out"
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
    if len(table.columns) >= 10_000:
        yield "only the first 10,000 columns were read"


def _listed(names: list[str]) -> str:
    shown = ", ".join(printable(name, limit=60) for name in names[:4])
    return shown + (" …" if len(names) > 4 else "")


def _nearest(name: str, names: list[str]) -> str:
    """A remark on what was most likely meant."""
    from trimtab.config.nearest import did_you_mean, nearest_names  # loads every model of the configuration

    return did_you_mean(nearest_names(name, names)) or ""
