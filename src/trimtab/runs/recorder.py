"""Writes all that a run's loop tells: the record, and the per-layer statistics beside it."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self, final

from trimtab.errors import StorageError
from trimtab.events import (
    Adjust,
    AlertRaised,
    DecisionTaken,
    Event,
    ExaminationEnded,
    FindingsChanged,
    Rollback,
    RunStarted,
    StepsEnded,
    Stop,
)
from trimtab.runs.adaptive import Detail
from trimtab.runs.directory import RunDirectory
from trimtab.runs.examinations import columns_of
from trimtab.runs.record import RecordWriter, lines_of
from trimtab.runs.statistics import StatisticsWriter

if TYPE_CHECKING:  # whoever reads a run needs no configuration
    from trimtab.config.adaptive import AdaptiveConfig, AdaptiveLoggingConfig


@final
class Recorder:
    """What the loop tells of every event: lines go to the record, per-layer values to the statistics."""

    def __init__(
        self,
        record: RecordWriter,
        statistics: StatisticsWriter | None = None,
        adaptive: AdaptiveLoggingConfig | None = None,
        examinations: Path | None = None,
    ) -> None:
        """`examinations` is the folder for what examinations read of layers, made when there is something."""
        self._record = record
        self._statistics, self._examinations = statistics, examinations
        self._opened: StatisticsWriter | None = None
        self._detail = None if statistics is None or adaptive is None else Detail(statistics, adaptive)
        self._is_refused = False

    @classmethod
    def open(cls, run: RunDirectory, *, branch: int = 0, adaptive: AdaptiveConfig | None = None, rank: int = 0) -> Self:
        """The recorder of a run, which goes on after what earlier attempts wrote; of a further `rank` a record beside
        the run's, without values of layers. Raises: StorageError."""
        if rank:
            return cls(RecordWriter(run.record_of_rank(rank), branch))
        bands = None if adaptive is None or adaptive.name == "none" else adaptive
        statistics = StatisticsWriter(run.statistics, every=1 if bands is None else bands.calm_every)
        return cls(RecordWriter(run.record, branch), statistics, bands, run.examinations)

    @property
    def pending(self) -> int:
        """Bytes of the record that the disk has not taken yet."""
        return self._record.pending

    def record(self, event: Event) -> None:
        """Write `event`; never raises for the disk's sake. A RunStarted opens its branch."""
        if isinstance(event, RunStarted):
            self._record.branch = event.branch
            if self._detail is not None:
                self._detail.went_back()
        if isinstance(event, StepsEnded):
            self._write_layers(event)
            event = replace(event, layers={})
        elif isinstance(event, ExaminationEnded):
            if (event.layers or event.histograms) and (examinations := self._open_examinations()) is not None:
                examinations.append(event.step, columns_of(event))
            event = replace(event, layers={}, histograms={})
        elif self._statistics is not None and _is_remarkable(event):
            if self._detail is not None:
                self._detail.remarkable(event.step)
            else:
                self._statistics.mark(event.step)
        self._record.append(*lines_of(event))
        self._tell_of_refusal(event)

    def _open_examinations(self) -> StatisticsWriter | None:
        if self._opened is None and self._examinations is not None:
            try:
                self._opened = StatisticsWriter(self._examinations)
            except StorageError as error:
                warnings.warn(f"what examinations read of layers is not kept: {error}", stacklevel=3)
                self._examinations = None
        return self._opened

    def _write_layers(self, event: StepsEnded) -> None:
        if self._detail is not None:
            self._detail.window(event)
        elif event.layers and self._statistics is not None:
            self._statistics.append(event.last_step, event.layers)

    def _tell_of_refusal(self, event: Event) -> None:
        """Once each time the disk refuses: with the lines that wait for it, there will be one that says so."""
        told, self._is_refused = self._is_refused, self._record.pending > 0
        if told or not self._is_refused:
            return
        step = event.last_step if isinstance(event, StepsEnded) else event.step
        text = f"the record could not be written ({self._record.problem}): it is kept in memory and tried again"
        warnings.warn(text, stacklevel=3)
        self._record.append(*lines_of(AlertRaised(step, "write_failed", text)))

    def sync(self) -> None:
        """Bring all to the disk. Raises: StorageError when the record cannot be written."""
        self._record.sync()

    def close(self) -> None:
        """Sync and close. Raises: StorageError when the record cannot be written."""
        if self._detail is not None:
            self._detail.write_waiting()  # how it ended
        for statistics in (self._statistics, self._opened):
            if statistics is not None:
                statistics.close()
        self._record.close()


def _is_remarkable(event: Event) -> bool:
    """Whether somebody will want to look at every window around `event`."""
    if isinstance(event, DecisionTaken):
        return isinstance(event.decision, Stop | Rollback | Adjust)
    return isinstance(event, FindingsChanged | AlertRaised)
