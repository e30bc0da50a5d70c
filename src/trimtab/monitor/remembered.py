"""What a run's record holds when a process goes on with it, for monitors that remember."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from trimtab.errors import TrimtabError
from trimtab.events import Event, RunStarted
from trimtab.runs import RunDirectory
from trimtab.runs.record import RecordReader, event_from_json, surviving


def events_before(run: RunDirectory, attempt: int) -> Iterator[tuple[float, Event]]:
    """All that earlier attempts told, what was taken back, too, each with its age in seconds."""
    for line, event in _events(_lines(run)):
        if isinstance(event, RunStarted) and event.attempt >= attempt:
            return
        yield max(0.0, time.time() - float(line["time"])), event


def events_until(run: RunDirectory, step: int) -> Iterator[Event]:
    """What survives of the record, up to `step`."""
    for line, event in _events(surviving(_lines(run))):
        if line["step"] <= step:
            yield event


def _lines(run: RunDirectory) -> list[dict[str, Any]]:
    with suppress(TrimtabError):
        return RecordReader(run.record).read()
    return []


def _events(lines: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], Event]]:
    """Lines with their events, without those that this version does not know."""
    for line in lines:
        with suppress(ValueError):
            event = event_from_json(line)
            yield line, event
