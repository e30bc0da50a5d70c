"""What happened: a run's directory, lock, record, statistics and checkpoint files, and what they add up to."""

from trimtab.runs.directory import RunDirectory, list_runs
from trimtab.runs.history import History, Series
from trimtab.runs.lock import Lock, live_holder
from trimtab.runs.record import RecordReader, RecordWriter, event_from_json, event_to_json, read_record
from trimtab.runs.recorder import Recorder
from trimtab.runs.statistics import StatisticsWriter, read_statistics

__all__ = [
    "History",
    "Lock",
    "RecordReader",
    "RecordWriter",
    "Recorder",
    "RunDirectory",
    "Series",
    "StatisticsWriter",
    "event_from_json",
    "event_to_json",
    "list_runs",
    "live_holder",
    "read_record",
    "read_statistics",
]
