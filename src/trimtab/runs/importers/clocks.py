"""The clock of a log: how long a step takes by it, and where a later process began it anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab.runs.importers.axis import Axis
from trimtab.runs.importers.cells import Floats, Rows
from trimtab.runs.importers.names import words
from trimtab.runs.importers.table import Table
from trimtab.runs.importers.vocabulary import TIMES

FEWEST_ROWS: Final = 24
"""That a clock is read of, to see where it begins anew."""
MOST_RESUMES: Final = 3
FEWEST_DURATIONS, RUNS_ON = 4, 1.5
"""Values that each rise above the last, to so many times the first: of durations that does not come by chance."""
LONGEST: Final = 1e8
"""Seconds: more is a date."""


def step_seconds(table: Table, short: Mapping[str, str], axis: Axis) -> float | None:
    """The usual seconds between two steps, if the log has a clock."""
    _, seconds, steps = _clock(table, short, axis)
    if len(steps) < 4:
        return None
    passed, done = np.diff(seconds), np.diff(steps)
    good = (done > 0) & (passed > 0) & np.isfinite(passed)
    return float(np.median(passed[good] / done[good])) if good.sum() >= 3 else None


def begins_anew(table: Table, short: Mapping[str, str], axis: Axis, epoch: str | None) -> list[int]:
    """The steps at which the time since the start of a process falls behind that of earlier rows: a later process.

    None where it does so often, or with the epochs, or stands still between: then it is the time of something shorter.
    """
    both, seconds, steps = _clock(table, short, axis)
    if len(both) < FEWEST_ROWS or not (np.diff(steps) >= 0).all():
        return []
    passed = np.diff(seconds)
    back = np.flatnonzero(passed < 0) + 1
    if not 0 < len(back) <= MOST_RESUMES or (passed == 0).any():
        return []
    if epoch is not None:
        epoch_rows, epochs = table.column(epoch)
        before, there = (np.floor(np.interp(both[at], epoch_rows, epochs)) for at in (back - 1, back))
        back = back[before == there]
    return [int(step) for step in steps[back]]


def time_of_steps(table: Table, short: Mapping[str, str]) -> str | None:
    """The column `time` beside `data_time`: what a step took, of which the data took a part."""
    by_words = {words(short.get(name, name)): name for name in table.columns}
    return by_words.get("time") if "data_time" in by_words else None


def _clock(table: Table, short: Mapping[str, str], axis: Axis) -> tuple[Rows, Floats, Floats]:
    """The rows that have both a time and a step, and these; none where there is no clock."""
    of_steps = time_of_steps(table, short)
    clock = next((name for name in table.columns if words(short.get(name, name)) in TIMES and name != of_steps), None)
    if clock is None or axis.name is None or axis.name not in table.columns:
        return np.empty(0, np.int64), np.empty(0), np.empty(0)
    (rows, seconds), (step_rows, steps) = table.column(clock), table.column(axis.name)
    both, left, right = np.intersect1d(rows, step_rows, assume_unique=True, return_indices=True)
    return both, seconds[left], steps[right]


def durations(values: Floats, judged: Floats) -> Floats:
    """What a column of the seconds of evaluations tells; nothing where it is a clock, which only goes on.

    Where there are more of them than evaluations, whose losses are `judged`, cells were written again in later rows.
    """
    values = values[np.isfinite(values)]
    if len(values) > _changes(judged).sum() > 0:
        values = values[_changes(values)]
    runs_on = len(values) >= FEWEST_DURATIONS and bool((np.diff(values) > 0).all()) and values[-1] > RUNS_ON * values[0]
    return values[:0] if runs_on or values.max(initial=0.0) > LONGEST else values


def _changes(values: Floats) -> NDArray[np.bool_]:
    """Where a value is not the one before."""
    return np.insert(np.diff(values) != 0, 0, True) if len(values) else np.zeros(0, np.bool_)
