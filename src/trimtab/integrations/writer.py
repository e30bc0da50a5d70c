"""What a logger's calls hand over, written by a thread of its own: no call waits for a device or a disk."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np

from trimtab.config.secrets import hide
from trimtab.events import AlertRaised, ArtifactLogged, EvaluationEnded, StepsEnded
from trimtab.integrations.artifacts import LINE_BYTES, Artifact, encoded, line_bytes
from trimtab.integrations.guard import Guard
from trimtab.integrations.late import Vector, resolved
from trimtab.integrations.names import Names
from trimtab.integrations.recording import Recording
from trimtab.integrations.volume import Allowance
from trimtab.runs.importers.cells import number
from trimtab.runs.printable import printable
from trimtab.runs.record import VALUES_A_LINE

DRAIN_SECONDS: Final = 0.2
HOLD_SECONDS: Final = 0.4
"""How long the newest step waits for more of its values: with a drain's time less than a second."""
MOST_ENTRIES: Final = 50_000
MOST_VALUES: Final = 500_000
MOST_BYTES: Final = 64 * 2**20
"""What may wait for the thread; what comes beyond that is left out and counted."""
MOST_PENDING_BYTES: Final = 16 * 2**20
"""What may wait for a disk that refuses it."""
_MEMORY_SECONDS: Final = 5.0
_VALUE_BYTES: Final = 14


@final
@dataclass(slots=True)
class _Rewind:
    step: int


_Entry = tuple[int, Mapping[str, Any]] | Artifact | _Rewind | threading.Event


@final
class Writer:
    """Rows and artifacts from any thread, in their order, into a `Recording`."""

    def __init__(self, recording: Recording, *, max_names: int, max_bytes_per_hour: int) -> None:
        self.recording = recording
        self.names = Names(max_names)
        self.allowance = Allowance(max_bytes_per_hour)
        self.newest: dict[str, float] = {}
        """The newest value of each name of theirs."""
        self.lost = {"waiting": 0, "names": 0, "bytes": 0, "behind": 0, "no_number": 0, "disk": 0}
        """Values and artifacts that were left out, by cause; "waiting": more came than could be written."""
        self._queue: deque[_Entry] = deque()
        self._values_in = self._values_out = self._bytes_in = self._bytes_out = 0
        self._rows: dict[int, dict[str, Any]] = {}
        self._since = 0.0  # when the newest of `_rows` began
        self._last: dict[str, int] = {}
        started = recording.started
        self._floor = started.step if started.resumed_from is not None else -1
        self._may_go_back = started.resumed_from is not None
        self._layers_until = self._floor
        self._memory_at = 0.0
        self._told: set[str] = set()
        self._first_lost: dict[str, str] = {}
        """Cause to the metric and step that it was first met with."""
        self._flushed: list[threading.Event] = []
        self._guard = Guard()
        self._wakes = threading.Event()
        self._stops = False
        self._thread = threading.Thread(target=self._work, name="trimtab-logger", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> str:
        """Why nothing is written any more, in a line; empty as long as something is."""
        return self._guard.failure if self._guard.silent else ""

    # In the thread of who logs.

    def put_row(self, step: int, values: Mapping[str, Any]) -> None:
        """Values of a step, which nobody changes any more."""
        if len(self._queue) >= MOST_ENTRIES or self._values_in - self._values_out > MOST_VALUES:
            self.lost["waiting"] += len(values)
            return
        self._values_in += len(values)
        self._queue.append((step, values))

    def put_artifact(self, artifact: Artifact) -> None:
        """An artifact, whose content nobody changes any more."""
        if len(self._queue) >= MOST_ENTRIES or self._bytes_in - self._bytes_out > MOST_BYTES:
            self.lost["waiting"] += 1
            return
        self._bytes_in += artifact.num_bytes
        self._queue.append(artifact)

    def rewind(self, step: int) -> None:
        """What is put from here on takes the place of what was beyond `step`."""
        self._queue.append(_Rewind(step))

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until all is written that was put before; False when that takes too long."""
        done = threading.Event()
        self._queue.append(done)
        self._wakes.set()
        return done.wait(timeout_seconds) if self._thread.is_alive() else False

    def close(self, timeout_seconds: float) -> bool:
        """Write all and end the thread; False when it hangs in writing."""
        self._stops = True
        self._wakes.set()
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    # In the thread that writes.

    def _work(self) -> None:
        while True:
            self._wakes.wait(DRAIN_SECONDS)
            self._wakes.clear()
            stops = self._stops
            self._guard.call(self._drain, everything=stops)
            if self._guard.silent:
                self._rows.clear()
                self._empty()
            for one in self._flushed:
                one.set()
            self._flushed.clear()
            if stops:
                self._guard.call(self._tell_at_the_end)
                return

    def _empty(self) -> None:
        """Let go of what waits, after something failed."""
        while self._queue:
            entry = self._queue.popleft()
            if isinstance(entry, threading.Event):
                self._flushed.append(entry)

    def _drain(self, *, everything: bool) -> None:
        for _ in range(len(self._queue)):
            entry = self._queue.popleft()
            match entry:
                case Artifact():
                    self._bytes_out += entry.num_bytes
                    self._write_artifact(entry)
                case _Rewind(step):
                    self._write_rows(list(self._rows.items()))
                    self._rows.clear()
                    self._go_back(step)
                case threading.Event():
                    everything = True
                    self._flushed.append(entry)
                case (step, values):
                    self._values_out += len(values)
                    row = self._rows.get(step)
                    if row is None:
                        row = self._rows[step] = {}
                        self._since = time.monotonic()
                    for theirs in row.keys() & values.keys():
                        self._lose("behind", theirs, step)  # the later one takes its place
                    row.update(values)
        held: dict[int, dict[str, Any]] = {}
        if self._rows and not everything and time.monotonic() - self._since < HOLD_SECONDS:
            newest = next(reversed(self._rows))
            held = {newest: self._rows.pop(newest)}
        rows, self._rows = list(self._rows.items()), held
        self._write_rows(rows)
        self._tell()

    def _go_back(self, step: int) -> None:
        self.recording.begin_again(step)
        self._floor = self._layers_until = step
        self._last.clear()
        self._may_go_back = False

    def _write_rows(self, rows: Iterable[tuple[int, dict[str, Any]]]) -> None:
        train: list[tuple[int, dict[str, float]]] = []
        evaluations: list[tuple[int, dict[str, float]]] = []
        layers: list[tuple[int, dict[str, float]]] = []
        rows = list(rows)
        if rows and self._may_go_back:
            self._may_go_back = False
            if rows[0][0] <= self._floor:
                self._go_back(rows[0][0] - 1)
        for step, raw in sorted(rows, key=lambda row: row[0]):  # no value is behind one that came with it
            kinds: tuple[dict[str, float], dict[str, float], dict[str, float]] = ({}, {}, {})
            for theirs, value in raw.items():
                if isinstance(value, Vector):
                    for name, one in _numbers_of(value).items():
                        if name not in raw:
                            self._take(step, name, one, kinds)
                else:
                    self._take(step, theirs, value, kinds)
            for values, found in zip(kinds, (train, evaluations, layers), strict=True):
                if values:
                    found.append((step, values))
        train, evaluations, layers = self._within_allowance(train, evaluations, layers)
        before = self._record_bytes()
        for event in _windows(train):
            self.recording.record(self._with_memory(event))
        for step, values in evaluations:
            self.recording.record(EvaluationEnded(step, values, 0.0))
        self.allowance.take(max(0, self._record_bytes() - before))
        for step, values in layers:
            self.allowance.take(4 * len(values) + 24)
            self.recording.record(StepsEnded(step, step, {}, {}, values))

    def _take(
        self, step: int, theirs: str, value: Any, kinds: tuple[dict[str, float], dict[str, float], dict[str, float]]
    ) -> None:
        name = self.names.get(theirs)
        if name is None:
            self._lose("names", theirs, step)
            return
        try:
            found = number(resolved(value))
        except Exception:  # its own code, which may raise anything: it costs no other value
            found = None
        if found is None:
            self._lose("no_number", theirs, step)
            return
        if step <= self._last.get(name.ours, self._floor) or (name.is_of_layer and step <= self._layers_until):
            self._lose("behind", theirs, step)
            return
        self._last[name.ours] = step
        self.newest[theirs] = found
        kinds[2 if name.is_of_layer else 1 if name.is_of_evaluation else 0][name.ours] = self.names.convert(
            theirs, name, found
        )

    def _lose(self, cause: str, name: str, step: int) -> None:
        self.lost[cause] += 1
        if cause not in self._first_lost:
            self._first_lost[cause] = f"{printable(name, limit=120)} at step {step}"

    def _within_allowance(
        self, *kinds: list[tuple[int, dict[str, float]]]
    ) -> tuple[list[tuple[int, dict[str, float]]], ...]:
        """As many rows of each kind as may be written, evenly spread, the newest among them."""
        if (layers := kinds[2]) and layers[-1][0] > self._layers_until:
            self._layers_until = layers[-1][0]
        left = self.allowance.left if self.recording.pending < MOST_PENDING_BYTES else 0.0
        asked = sum(_bytes_of(values) for rows in kinds for _, values in rows)
        if asked <= left:
            return kinds
        stride = int(-(-asked // left)) if left > 0 else 1
        kept = []
        for rows in kinds:
            some: list[tuple[int, dict[str, float]]] = []
            for place, row in enumerate(reversed(rows)):
                if place % stride == 0 and (size := _bytes_of(row[1])) <= left:
                    left -= size
                    some.append(row)
                else:
                    self.lost["bytes"] += len(row[1])
            kept.append(some[::-1])
        return tuple(kept)

    def _with_memory(self, event: StepsEnded) -> StepsEnded:
        now = time.monotonic()
        if now - self._memory_at < _MEMORY_SECONDS or "memory_bytes" in self._last:
            return event
        self._memory_at = now
        return StepsEnded(event.first_step, event.last_step, event.per_step, {"memory_bytes": _memory_bytes()})

    def _record_bytes(self) -> int:
        try:
            return os.stat(self.recording.run.record).st_size + self.recording.pending
        except OSError:
            return 0

    def _write_artifact(self, artifact: Artifact) -> None:
        step, name = artifact.step, artifact.name
        if not self.names.take(name):
            self._lose("names", name, step)
            return
        if self.allowance.left < LINE_BYTES:  # encoding it would be in vain
            self._lose("bytes", name, step)
            return
        try:
            text, content = encoded(artifact)
        except Exception:  # one that cannot be read costs no other
            self._lose("no_number", name, step)
            return
        size = len(content) + line_bytes(name, text, has_file=bool(content))
        if size > self.allowance.left:
            self._lose("bytes", name, step)
            return
        self.allowance.take(size)
        path = None
        if content:
            try:
                path = self._file(step, name, ".png" if artifact.kind == "picture" else ".txt", content)
            except OSError:
                self.lost["disk"] += 1
                return
        self.recording.record(ArtifactLogged(step, artifact.kind, name, text, path))

    def _file(self, step: int, name: str, ending: str, content: bytes) -> str:
        run = self.recording.run
        folder = run.artifacts / "logged"
        folder.mkdir(parents=True, exist_ok=True)
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", hide(name))[:80].strip("_") or "artifact"
        for again in range(1, 10_000):
            path = folder / f"{stem}-{step:08d}{'' if again == 1 else f'-{again}'}{ending}"
            if not path.exists():  # nobody else writes here
                try:
                    path.write_bytes(content)
                except OSError:
                    path.unlink(missing_ok=True)  # a part of a picture is none
                    raise
                return path.relative_to(run.path).as_posix()
        raise OSError("ten thousand files of this name exist")

    def _tell(self) -> None:
        """Once for each cause, that something was left out."""
        for cause, count in self.lost.items():
            if count and cause not in self._told:
                self._told.add(cause)
                text = f"{_CAUSES[cause].format(most=self.names.most)}: "
                text += f"first of {one}; " if (one := self._first_lost.get(cause)) else ""
                text += "left out and counted from here on"
                self._alert(text, {})
                with contextlib.suppress(RuntimeWarning):  # warnings may have been made errors
                    warnings.warn(f"trimtab: {text}", RuntimeWarning, stacklevel=2)

    def _tell_at_the_end(self) -> None:
        lost = {cause: count for cause, count in self.lost.items() if count}
        if lost:
            self._alert(f"{sum(lost.values()):,} values were left out of the record in all", lost)

    def _alert(self, text: str, details: Mapping[str, int]) -> None:
        self.recording.record(AlertRaised(max(self._last.values(), default=0), "volume_capped", text, details))


_CAUSES: Final = {
    "waiting": "more is logged than can be written",
    "names": "more than {most:,} names are logged (max_names)",
    "bytes": "more bytes an hour are logged than max_bytes_per_hour",
    "behind": "values came for steps at or before the newest of their metric (rewind says that a loop went back)",
    "no_number": "values are logged that are no single number, or cannot be read",
    "disk": "pictures or texts cannot be written to the disk",
}


def _numbers_of(values: Vector) -> Mapping[str, Any]:
    try:
        return values.resolve()
    except Exception:  # of a device that has failed
        return dict.fromkeys(values.names)


def _bytes_of(values: Mapping[str, float]) -> int:
    escaped = (len(name) if name.isascii() else len(json.dumps(name)) for name in values)
    return LINE_BYTES + sum(escaped) + _VALUE_BYTES * len(values)


def _windows(rows: list[tuple[int, dict[str, float]]]) -> Iterable[StepsEnded]:
    """Neighbouring steps with the same names together; at most about 50 names a window."""
    begin = 0
    while begin < len(rows):
        first, names = rows[begin][0], tuple(rows[begin][1])
        end = begin + 1
        while end < len(rows) and rows[end][0] == first + end - begin and tuple(rows[end][1]) == names:
            end += 1
        for start in range(0, len(names), VALUES_A_LINE):
            part = names[start : start + VALUES_A_LINE]
            per_step = {name: np.array([values[name] for _, values in rows[begin:end]], np.float64) for name in part}
            yield StepsEnded(first, rows[end - 1][0], per_step, {})
        begin = end


def _memory_bytes() -> float:
    """The peak on CUDA where torch has used it; the resident set elsewhere."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated())
    import psutil

    return float(psutil.Process().memory_info().rss)
