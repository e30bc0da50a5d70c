"""A run's metrics as columns: what the doctor, the report and the board read instead of lines.

A `Series` keeps at most 4,096 buckets, each with minimum, mean and maximum, and the newest samples raw, so that a
run of ten million steps is as quick to judge as one of a thousand. The buckets depend on the samples alone, never on
how they were cut into windows or reads: a history that followed a run equals one read after the fact.
"""

from __future__ import annotations

import itertools
import math
from array import array
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, final

import numpy as np
from numpy.typing import NDArray

from trimtab.events import (
    AlertRaised,
    ArtifactLogged,
    CheckpointSaved,
    DecisionTaken,
    EvaluationEnded,
    Event,
    ExaminationEnded,
    FindingsChanged,
    RunEnded,
    RunStarted,
    StepsEnded,
)
from trimtab.runs.columns import Columnizer, Floats, Steps
from trimtab.runs.examinations import EXAMINATIONS, read_examinations
from trimtab.runs.ranks import read_ranks, records_of_ranks, series_of_ranks
from trimtab.runs.record import RecordReader, decoded_line, event_from_json, lines_of, no_garbage, surviving
from trimtab.runs.rollbacks import Rollbacks, rollbacks_of
from trimtab.runs.statistics import read_statistics

MAX_BUCKETS: Final = 4096
RAW_SAMPLES: Final = 4096
LAYER_ROWS: Final = 1024
WAITING_LINES: Final = 64


class _Columns(NamedTuple):
    """Buckets, one row each."""

    first: Steps
    last: Steps
    total: Floats
    low: Floats
    high: Floats
    finite: Steps
    samples: Steps


@final
class Series:
    """One metric over steps, in at most `capacity` buckets of equally many samples.

    `width`, the samples in a bucket, is a power of two: 1 until there are more than `capacity` samples, then it
    doubles whenever the buckets are full. Non-finite samples are counted in `bad` and left out of the rest.
    """

    def __init__(self, capacity: int = MAX_BUCKETS) -> None:
        self.capacity = capacity
        self.width = 1
        self.first_bad_step: int | None = None
        self.last_bad_step: int | None = None
        self._table = _room_for(0)
        """The closed buckets in its first rows; what follows is room for more, and for the open one."""
        self._num_closed = 0
        self._open: list[tuple[Steps, Floats]] = []  # samples of the bucket that is not full yet
        self._num_open = 0
        self._raw: deque[tuple[Steps, Floats]] = deque()
        self._num_raw = 0
        self._view: _Columns | None = None
        self._mean: Floats | None = None
        self.derived: dict[Any, Any] = {}
        """What readers computed of it, for the next who asks; forgotten as it grows."""

    def append(self, steps: Steps, values: Floats) -> None:
        """Add samples, in the order of their steps."""
        if not len(steps):
            return
        self._view, self._mean, self.derived = None, None, {}
        if not (finite := np.isfinite(values)).all():
            bad = ~finite
            if self.first_bad_step is None:
                self.first_bad_step = int(steps[bad][0])
            self.last_bad_step = int(steps[bad][-1])
        self._raw.append((steps, values))
        self._num_raw += len(steps)
        while self._num_raw - len(self._raw[0][0]) >= RAW_SAMPLES:
            self._num_raw -= len(self._raw.popleft()[0])
        self._open.append((steps, values))
        self._num_open += len(steps)
        if self._num_open >= self.width:
            self._close_buckets()

    def _close_buckets(self) -> None:
        steps, values = _joined(self._open)
        taken = 0
        while not self._num_closed and len(steps) // self.width > self.capacity:  # where they would end up one by one
            self.width *= 2
        while len(steps) - taken >= self.width:
            room = self.capacity - self._num_closed
            if room == 0:
                halved = _halved(_first(self._table, self._num_closed))
                self._table, self._num_closed = _room_for(self.capacity + 1), 0
                self._put(halved)
                self._num_closed = len(halved.first)
                self.width *= 2
                continue
            num = min(room, (len(steps) - taken) // self.width)
            end = taken + num * self.width
            self._put(_buckets(steps[taken:end], values[taken:end], self.width, self._is_finite))
            self._num_closed, taken = self._num_closed + num, end
        self._open = [(steps[taken:], values[taken:])] if taken < len(steps) else []
        self._num_open = len(steps) - taken

    @property
    def _is_finite(self) -> bool:
        return self.first_bad_step is None

    def _put(self, buckets: _Columns) -> None:
        """Write buckets behind the closed ones."""
        end = self._num_closed + len(buckets.first)
        if end > len(self._table.first):
            room = _room_for(min(2 * end, self.capacity + 1))
            for column, old in zip(room, self._table, strict=True):
                column[: self._num_closed] = old[: self._num_closed]
            self._table = room
        for column, part in zip(self._table, buckets, strict=True):
            column[self._num_closed : end] = part

    @property
    def columns(self) -> _Columns:
        """All buckets, that of the newest samples included, which is another one as the series grows."""
        if self._view is None:
            if self._num_open:
                steps, values = _joined(self._open)
                self._put(_buckets(steps, values, len(steps), self._is_finite))
            self._view = _first(self._table, self._num_closed + bool(self._num_open))
        return self._view

    def __len__(self) -> int:
        """Buckets, the open one included."""
        return len(self.columns.first)

    @property
    def num_samples(self) -> int:
        """Samples, non-finite ones included."""
        return int(self.columns.samples.sum())

    @property
    def num_bad(self) -> int:
        """Samples that are not finite."""
        return int(self.bad.sum())

    @property
    def first_steps(self) -> Steps:
        """The first step of each bucket [N]."""
        return self.columns.first

    @property
    def steps(self) -> Steps:
        """The last step of each bucket [N]; the step itself while `width` is 1."""
        return self.columns.last

    @property
    def mean(self) -> Floats:
        """The mean of each bucket's finite samples [N], not to be written; NaN where there are none."""
        if self._mean is None:
            total, finite = self.columns.total, self.columns.finite
            if self._is_finite:
                self._mean = total / self.width
                if self._num_open:
                    self._mean[-1] = total[-1] / self._num_open
            else:
                with np.errstate(invalid="ignore"):  # 0 / 0, which is NaN
                    self._mean = total / finite
            self._mean.flags.writeable = False
        return self._mean

    @property
    def minimum(self) -> Floats:
        """The smallest finite sample of each bucket [N]; NaN where there is none."""
        return self.columns.low

    @property
    def maximum(self) -> Floats:
        """The largest finite sample of each bucket [N]; NaN where there is none."""
        return self.columns.high

    @property
    def bad(self) -> Steps:
        """How many samples of each bucket are not finite [N]."""
        return self.columns.samples - self.columns.finite

    def finite(self) -> tuple[Steps, Floats]:
        """Steps and means of the buckets that hold a finite sample."""
        mean = self.mean
        if self._is_finite or (kept := np.isfinite(mean)).all():
            return self.steps.copy(), mean
        return self.steps[kept], mean[kept]

    def raw(self) -> tuple[Steps, Floats]:
        """The newest 4,096 samples one by one, non-finite ones included."""
        if not self._raw:
            return np.empty(0, np.int64), np.empty(0)
        steps, values = _joined(self._raw)
        return steps[-RAW_SAMPLES:], values[-RAW_SAMPLES:]

    @property
    def last(self) -> float:
        """The newest sample, finite or not; NaN when there is none."""
        return float(self._raw[-1][1][-1]) if self._raw else float("nan")


def _room_for(num: int) -> _Columns:
    first, last, finite, samples = np.empty((4, num), np.int64)
    total, low, high = np.empty((3, num))
    return _Columns(first, last, total, low, high, finite, samples)


def _first(columns: _Columns, num: int) -> _Columns:
    first, last, total, low, high, finite, samples = columns
    return _Columns(first[:num], last[:num], total[:num], low[:num], high[:num], finite[:num], samples[:num])


def _joined(parts: Collection[tuple[Steps, Floats]]) -> tuple[Steps, Floats]:
    if len(parts) == 1:
        return next(iter(parts))
    return np.concatenate([steps for steps, _ in parts]), np.concatenate([values for _, values in parts])


def _halved(columns: _Columns) -> _Columns:
    """Neighbours joined, so that there is room for as many samples again."""
    first, last, total, low, high, finite, samples = columns
    return _Columns(
        first[0::2],
        last[1::2],
        total[0::2] + total[1::2],
        np.fmin(low[0::2], low[1::2]),
        np.fmax(high[0::2], high[1::2]),
        finite[0::2] + finite[1::2],
        samples[0::2] + samples[1::2],
    )


def _buckets(steps: Steps, values: Floats, width: int, is_finite: bool) -> _Columns:
    """Whole buckets of `width` samples. Sums go by pairs, as joining neighbours does: the same bits either way."""
    first, last = steps[::width], steps[width - 1 :: width]
    finite = count = np.full(len(first), width, np.int64)
    if width == 1 and is_finite:
        return _Columns(first, last, values, values, values, finite, count)
    masked_WN = total_WN = np.ascontiguousarray(values.reshape(-1, width).T)  # a column for each bucket
    if not is_finite:
        finite_WN = np.isfinite(total_WN)
        masked_WN, total_WN = np.where(finite_WN, total_WN, np.nan), np.where(finite_WN, total_WN, 0.0)
        finite = finite_WN.sum(axis=0)
    while (size := len(total_WN)) > 1:
        pairs = total_WN[0 : size - 1 : 2] + total_WN[1::2]
        total_WN = np.concatenate([pairs, total_WN[-1:]]) if size % 2 else pairs
    low, high = np.fmin.reduce(masked_WN, axis=0), np.fmax.reduce(masked_WN, axis=0)
    return _Columns(first, last, total_WN[0], low, high, finite, count)


@final
class Layers:
    """Per-layer values: a table by window and column, `steps` where the windows end; NaN: not measured there.

    Beyond 1,024 windows every second one of the older is left out.
    """

    def __init__(self) -> None:
        self._columns: dict[str, int] = {}
        self._names: Sequence[str] = ()
        self._where: NDArray[np.int64] = np.empty(0, np.int64)
        """The columns of `_names`, which hardly ever change from one window to the next."""
        self._steps = array("q")
        self._table_RC: Floats = np.empty((0, 0))
        """The windows' values in its first rows; what follows is room for more."""
        self._layers: dict[str, tuple[int, tuple[str, ...], list[int]]] = {}
        """For each metric the columns that there were, and its own."""
        self._views: dict[str, tuple[Steps, tuple[str, ...], Floats]] = {}
        """What `values` gave; forgotten as it grows."""

    def append(self, step: int, names: Sequence[str], values: Floats) -> None:
        """Add the window that ends at `step`."""
        self._views = {}
        if names != self._names:
            columns = (self._columns.setdefault(name, len(self._columns)) for name in names)
            self._names, self._where = names, np.fromiter(columns, np.int64, count=len(names))
        while self._steps and self._steps[-1] >= step:  # windows that a later branch measured again
            self._steps.pop()
        if len(self._steps) == LAYER_ROWS:
            kept = [*range(0, LAYER_ROWS // 2, 2), *range(LAYER_ROWS // 2, LAYER_ROWS)]
            self._steps = array("q", [self._steps[index] for index in kept])
            self._table_RC[: len(kept)] = self._table_RC[kept]
        row = len(self._steps)
        rows, columns = self._table_RC.shape
        if row == rows or len(self._columns) > columns:
            room = np.full((max(2 * row, 16) if row == rows else rows, len(self._columns)), np.nan)
            room[:row, :columns] = self._table_RC[:row]
            self._table_RC = room
        self._table_RC[row] = np.nan
        self._table_RC[row, self._where] = values
        self._steps.append(step)

    def has(self, metric: str) -> bool:
        """Whether any layer has this metric."""
        return bool(self._named(metric)[0])

    def _named(self, metric: str) -> tuple[tuple[str, ...], list[int]]:
        """The names of the layers that have this metric, and its columns."""
        num, known = len(self._columns), self._layers.get(metric)
        if known is None or known[0] != num:
            ending = f"/{metric}"
            names = {name: column for name, column in self._columns.items() if name.endswith(ending)}
            layers = tuple(name.removeprefix("layer/").removesuffix(ending) for name in names)
            known = self._layers[metric] = num, layers, [*names.values()]
        return known[1:]

    def _in(self, columns: list[int]) -> Floats:
        """The values in some columns, which most often are as far from one to the next as the metrics are many."""
        table_RC = self._table_RC[: len(self._steps)]
        apart = columns[1] - columns[0] if len(columns) > 1 else 0
        if apart > 0 and columns == list(range(columns[0], columns[-1] + 1, apart)):
            return table_RC[:, columns[0] : columns[-1] + 1 : apart].copy()
        return table_RC.take(columns, axis=1)

    def values(self, metric: str) -> tuple[Steps, tuple[str, ...], Floats]:
        """Steps [W], layer names [L] and values [W, L] of one metric, not to be written."""
        if metric not in self._views:
            layers, columns = self._named(metric)
            known = next(iter(self._views.values()), None)  # of another metric, whose steps are the same
            steps = np.array(self._steps, np.int64) if known is None else known[0]
            values_WL = self._in(columns)
            steps.flags.writeable = values_WL.flags.writeable = False
            self._views[metric] = steps, layers, values_WL
        return self._views[metric]


@final
class History:
    """All that a run told: a series for each metric, and the events that are no numbers.

    It holds the branch that survived. One that follows a run is told every event by `observe`; after a rollback or a
    resume it is read anew from the record, since buckets cannot be taken apart.
    """

    def __init__(self) -> None:
        self.layers = Layers()
        self.examined = Layers()
        """The same of examinations, whose metrics of the whole model are series `probe/…`."""
        self._series: dict[str, Series] = {}
        self._waiting: list[dict[str, Any]] = []
        """Lines of windows, as the record rounds."""
        self.starts: list[RunStarted] = []
        self.ended_before: list[RunEnded | None] = []
        """For each of `starts` how the attempt before ended; None where it wrote no end."""
        self.ended: RunEnded | None = None
        self.decisions: list[DecisionTaken] = []
        self.rollbacks = Rollbacks()
        """Of all branches, as the one that survived has no trace of them."""
        self.alerts: list[AlertRaised] = []
        self.checkpoints: list[CheckpointSaved] = []
        self.artifacts: list[ArtifactLogged] = []
        self.findings: list[FindingsChanged] = []
        self.evaluation_seconds: list[float] = []
        self._last_step = 0
        self.total_steps: int | None = None
        """Steps that were planned, where that is known."""
        self.damaged_lines = 0

    @classmethod
    def read(
        cls,
        record: Path,
        *,
        statistics: Path | None = None,
        all_branches: bool = False,
        windows_before: float = math.inf,
        ranks: bool = False,
    ) -> Self:
        """The history in a record, of the surviving branch alone unless `all_branches`.

        Of windows only those that end before the step `windows_before`. With `ranks`, those of further ranks beside it
        become `rank/<n>/<metric>` and `ranks/<metric>/<how>`.

        Raises: UsageError when a newer trimtab wrote it.
        """
        reader = RecordReader(record)
        history = cls()
        with no_garbage():
            lines = reader.read()
            history.rollbacks = rollbacks_of(lines)
            lines = lines if all_branches else surviving(lines)
            if windows_before < math.inf:
                lines = [line for line in lines if line.get("last_step", 0) < windows_before]
            noted, history.rollbacks = history.rollbacks, Rollbacks()  # of all branches, and not once more
            history.extend(lines)
            history.rollbacks = noted
            del lines
            history.damaged_lines = reader.damaged
            if ranks and records_of_ranks(record):
                by_rank, history.damaged_lines = read_ranks(record, all_branches=all_branches)
                for name, steps, values in series_of_ranks(by_rank):
                    before = steps < windows_before
                    history.add(name, steps[before], values[before])
        if statistics is not None:
            steps, names, values_WC = read_statistics(statistics)
            for step, row in zip(steps, values_WC, strict=True):
                if step >= windows_before:
                    continue
                history.layers.append(int(step), names, row.astype(np.float64))
            for examination in read_examinations(statistics / EXAMINATIONS):
                if examination.step < windows_before:
                    history._take_layers(examination)
        return history

    def extend(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add lines of a record, as its reader gives them."""
        columns = Columnizer(self.add)
        for line in lines:
            if line["event"] == "StepsEnded":
                columns.take(line)
                continue
            try:
                event = event_from_json(line)
            except ValueError:
                continue
            self._note(event)
        columns.flush()

    def observe(self, event: Event) -> None:
        """Add an event of a run that is going on; a window's metrics are only put aside until somebody asks."""
        if isinstance(event, StepsEnded):
            self._waiting += [decoded_line(dict(line)) for line in lines_of(event)]
            if event.layers:
                row = np.fromiter(event.layers.values(), np.float32, count=len(event.layers))  # as its file holds
                self.layers.append(event.last_step, tuple(event.layers), row.astype(np.float64))
            if len(self._waiting) >= WAITING_LINES:
                self._settle()
        else:
            self._note(event)

    def add(self, name: str, steps: Steps, values: Floats) -> None:
        """Add samples of one metric, in the order of their steps."""
        if len(steps):
            self._series.setdefault(name, Series()).append(steps, values)
            self._last_step = max(self._last_step, int(steps[-1]))

    def replace(self, name: str, series: Series) -> None:
        """Put other samples in place of a metric's."""
        self._series[name] = series

    @property
    def series(self) -> Mapping[str, Series]:
        """Metric name to its values; evaluations among them, at the steps where they took place."""
        if self._waiting:
            self._settle()
        return self._series

    def _settle(self) -> None:
        """Take in the lines that were put aside."""
        waiting, self._waiting = self._waiting, []
        self.extend(waiting)

    @property
    def last_step(self) -> int:
        """The newest step that anything is known of."""
        return max(self._last_step, self._waiting[-1]["last_step"] if self._waiting else 0)

    def _note(self, event: Event) -> None:
        self.rollbacks.note(event)
        match event:
            case RunStarted():
                self.starts.append(event)
                self.ended_before.append(self.ended)
                self.total_steps = event.total_steps
                self.ended = None
            case ExaminationEnded():
                for name, value in event.metrics.items():
                    self.add(name, np.array([event.step]), np.array([value], dtype=np.float64))
                self._take_layers(event)
            case EvaluationEnded():
                self.evaluation_seconds.append(event.seconds)
                for name, value in event.metrics.items():
                    self.add(name, np.array([event.step]), np.array([value], dtype=np.float64))
            case CheckpointSaved():
                self.checkpoints.append(event)
            case DecisionTaken():
                self.decisions.append(event)
            case AlertRaised():
                self.alerts.append(event)
            case ArtifactLogged():
                self.artifacts.append(event)
            case FindingsChanged():
                self.findings.append(event)
            case RunEnded():
                self.ended = event

    def _take_layers(self, event: ExaminationEnded) -> None:
        if event.layers:
            row = np.fromiter(event.layers.values(), np.float32, count=len(event.layers))
            there = ~np.isnan(row)  # what was no number is not told from what was not read
            names = tuple(itertools.compress(event.layers, there.tolist()))
            if names:
                self.examined.append(event.step, names, row[there].astype(np.float64))

    def get(self, *names: str) -> Series | None:
        """The first of `names` that was measured."""
        known = self.series
        return next((known[name] for name in names if name in known), None) if names[1:] else known.get(names[0])

    def has(self, name: str) -> bool:
        """Whether a metric was measured; `layer/*/<metric>` asks for any layer's, by examinations, too."""
        if name in self.series or not name.startswith("layer/*/"):
            return name in self._series
        metric = name.removeprefix("layer/*/")
        return bool(self._series) and (self.layers.has(metric) or self.examined.has(metric))
