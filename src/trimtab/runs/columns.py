"""The values in lines of a record as columns: exact, metric by metric, in the order of their steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from trimtab.runs.record import read_record, values_of

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]


def columns_of_record(record: Path) -> dict[str, tuple[Steps, Floats]]:
    """Every sample of every metric in the branch that survived: steps [N] and values [N] by name.

    Raises: UsageError when a newer trimtab wrote it.
    """
    return columns_of(read_record(record))


def columns_of(lines: Iterable[Mapping[str, Any]]) -> dict[str, tuple[Steps, Floats]]:
    """The same of lines; those of steps, evaluations and examinations, the others hold no metrics."""
    parts: dict[str, list[tuple[Steps, Floats]]] = {}

    def add(name: str, steps: Steps, values: Floats) -> None:
        parts.setdefault(name, []).append((steps, values))

    columns = Columnizer(add)
    for line in lines:
        if line["event"] == "StepsEnded":
            columns.take(line)
        elif line["event"] in ("EvaluationEnded", "ExaminationEnded"):
            columns.flush()  # so that metrics come in the order in which they were first told
            for name, value in line["metrics"].items():
                add(name, np.array([line["step"]], np.int64), _numbers([value]))
    columns.flush()
    return {
        name: (np.concatenate([steps for steps, _ in found]), np.concatenate([values for _, values in found]))
        for name, found in parts.items()
    }


@final
class Columnizer:
    """Turns the values of StepsEnded lines into columns, as many lines at a time as have the same metrics."""

    def __init__(self, add: Callable[[str, Steps, Floats], None]) -> None:
        self._add = add
        self._names: tuple[str, ...] = ()
        self._firsts: list[int] = []
        self._nums: list[int] = []
        self._rows: list[tuple[Any, ...]] = []
        self._values: dict[str, tuple[list[int], list[float]]] = {}

    def take(self, line: Mapping[str, Any]) -> None:
        """Add a line behind those that were taken before."""
        first, last, series = line["first_step"], line["last_step"], line["per_step"]
        if (names := tuple(series)) and names != self._names:
            self.flush()
            self._names = names
        if names:
            self._firsts.append(first)
            self._nums.append(last - first + 1)
            self._rows.append(tuple(series.values()))
        for name, value in values_of(line).items():
            steps, values = self._values.setdefault(name, ([], []))
            steps.append(last)
            values.append(value)

    def flush(self) -> None:
        """Hand over what was taken."""
        firsts, nums = np.array(self._firsts, np.int64), np.array(self._nums, np.int64)
        regular = bool((nums > 0).all())
        every_step = _ranges(firsts, nums) if regular else None
        for name, column in zip(self._names, zip(*self._rows, strict=True), strict=False):
            if every_step is None:
                self._add(name, *_of_mixed_parts(column, firsts, nums))
            elif list not in (kinds := set(map(type, column))):
                self._add(name, every_step, np.repeat(_numbers(column), nums))
            else:
                parts: Sequence[list[Any]] = column
                if len(kinds) > 1:
                    both = zip(column, self._nums, strict=True)
                    parts = [part if type(part) is list else [part] * num for part, num in both]
                if list(map(len, parts)) == self._nums:
                    self._add(name, every_step, _numbers(list(itertools.chain.from_iterable(parts))))
                else:
                    self._add(name, *_of_mixed_parts(column, firsts, nums))
        for name, (last_steps, numbers) in self._values.items():
            self._add(name, np.array(last_steps, np.int64), _numbers(numbers))
        self._firsts, self._nums, self._rows, self._values = [], [], [], {}


def _numbers(values: Sequence[Any]) -> Floats:
    """`values` as an array; what is no number becomes NaN."""
    try:
        return np.fromiter(values, np.float64, len(values))
    except (TypeError, ValueError):
        return np.array([value if isinstance(value, int | float) else np.nan for value in values], np.float64)


def _of_mixed_parts(column: Sequence[Any], firsts: Steps, nums: Steps) -> tuple[Steps, Floats]:
    """Steps and values where some parts are lists, some one number for all their steps; a list of another length is
    left out."""
    constant = np.fromiter((type(part) is not list for part in column), np.bool_, len(column))
    parts = [part if type(part) is list else (part,) for part in column]
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    kept = (constant | (lengths == nums)) & (nums > 0)
    values = _numbers(list(itertools.chain.from_iterable(parts)))
    repeats = np.repeat(np.where(constant, nums, 1) * kept, lengths)
    return _ranges(firsts[kept], nums[kept]), np.repeat(values, repeats)


def _ranges(firsts: Steps, nums: Steps) -> Steps:
    """first, first + 1, … of each part, one behind the other."""
    if len(firsts) and (firsts[1:] == firsts[:-1] + nums[:-1]).all():  # as most often: each goes on from the one before
        return np.arange(firsts[0], firsts[-1] + nums[-1])
    begins = np.cumsum(nums) - nums
    offsets: Steps = np.repeat(firsts - begins, nums)
    return np.arange(len(offsets)) + offsets
