"""record.jsonl: what happened in a run, one event a line, each with its checksum.

A line is an ASCII JSON object without spaces, whose last key is `crc32`:

    {"schema":1,"sequence":7,"branch":1,"step":20,"time":1790000000.123,"event":"StepsEnded",…,"crc32":123}

`crc32` is zlib's, over the line as it would be without that key: the bytes before `,"crc32":`, then `}`.
So a script needs no more than

    for line in open("record.jsonl", "rb"):
        body, _, checksum = line.rstrip(b"\\n").rpartition(b',"crc32":')
        assert zlib.crc32(body + b"}") == int(checksum[:-1])

`sequence` counts the lines of a file; it orders them, `time` (Unix seconds) need not. Non-finite numbers are
the strings "nan", "inf", "-inf". In StepsEnded a metric that is constant in the window is one number,
another is a list with one number a step, rounded to 7 significant digits (the device measures in fp32);
whole numbers and all other values are exact. A window with more than about 50 values becomes several lines,
each of them a StepsEnded of its own with a part of the steps; the window's `values` are in the last.
"""

from __future__ import annotations

import gc
import itertools
import json
import math
import operator
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, BinaryIO, Final, final

import numpy as np
import orjson

from trimtab import events
from trimtab.errors import StorageError
from trimtab.events import DecisionTaken, Event, ExaminationEnded, FindingsChanged, Histogram, StepsEnded
from trimtab.runs.files import SCHEMA, AppendFile, check_schema, json_value, python_value

VALUES_A_LINE = 50
_MARK = b',"crc32":'
_ENVELOPE: Final[dict[str, tuple[type, ...]]] = {
    "sequence": (int,),
    "branch": (int,),
    "step": (int,),
    "time": (int, float),
    "event": (str,),
}


class _Places:
    """What every line of a kind of event has, and of which types."""

    def __init__(self, **more: tuple[type, ...]) -> None:
        places = _ENVELOPE | more
        self._values = operator.itemgetter(*places)
        self._signatures = frozenset(itertools.product(*places.values()))

    def fit(self, content: Mapping[str, Any]) -> bool:
        """Whether `content` has them all; as quick as it can be said, since it is asked of every line."""
        try:
            return tuple(map(type, self._values(content))) in self._signatures
        except KeyError:
            return False


_ANY_EVENT: Final = _Places()
_PLACES: Final[dict[str, _Places]] = {
    "StepsEnded": _Places(first_step=(int,), last_step=(int,), per_step=(dict,), values=(dict,)),
    "RunStarted": _Places(attempt=(int,), resumed_from=(int, type(None))),
}
_EVENTS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        events.RunStarted,
        events.StepsEnded,
        events.EvaluationEnded,
        events.ExaminationEnded,
        events.CheckpointSaved,
        events.FindingsChanged,
        events.AlertRaised,
        events.DecisionTaken,
        events.ArtifactLogged,
        events.RunEnded,
    )
}
_DECISIONS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (events.Stop, events.Save, events.Rollback, events.Adjust, events.Evaluate, events.Advise)
}
_NUMBERS = ("values", "metrics", "layers", "time_split", "seconds", "best_value")
"""The fields whose strings are non-finite numbers; anywhere else a string is a string."""
_DECODED = frozenset(("per_step", *_NUMBERS))


def event_to_json(event: Event) -> dict[str, Any]:
    """`event` as JSON values: "event" names its kind, "step" is where it belongs, then its own fields."""
    line: dict[str, Any] = {
        "event": type(event).__name__,
        "step": event.last_step if isinstance(event, StepsEnded) else event.step,
    }
    for field in fields(event):
        value = getattr(event, field.name)
        if field.name in ("layers", "details", "histograms") and not value:
            continue
        if field.name == "per_step":
            value = {name: _series(array) for name, array in value.items()}
        elif field.name == "decision":
            value = {"kind": type(value).__name__} | {
                part.name: json_value(getattr(value, part.name)) for part in fields(value)
            }
        elif field.name == "histograms":
            value = {name: json_value(asdict(histogram)) for name, histogram in value.items()}
        elif field.name in _NUMBERS:
            value = _encoded(value)
        else:
            value = json_value(value)
        line[field.name] = value
    return line


def event_from_json(line: Mapping[str, Any]) -> Event:
    """The event in a line of the record, or in what `event_to_json` gave.

    Raises: ValueError when it is no event of this version.
    """
    try:
        kind = _EVENTS[line["event"]]
        content = {field.name: line[field.name] for field in fields(kind) if field.name in line}
        for name in _NUMBERS:
            if name in content:
                content[name] = decoded(content[name])
        if kind is StepsEnded:
            content["values"] = values_of(content)
            steps = content["last_step"] - content["first_step"] + 1
            content["per_step"] = {
                name: np.broadcast_to(np.asarray(decoded(series), dtype=np.float64), steps)
                for name, series in content["per_step"].items()
            }
        elif kind is ExaminationEnded:
            content["samples"] = tuple(python_value(content["samples"]))
            histograms = python_value(content.pop("histograms", {}))
            content["histograms"] = {
                name: Histogram(one["low"], one["high"], tuple(one["counts"])) for name, one in histograms.items()
            }
        elif kind is FindingsChanged:
            content["findings"] = tuple(content["findings"])
        elif kind is DecisionTaken:
            content["decision"] = _decision(content["decision"])
        if "details" in content:
            content["details"] = python_value(content["details"])
        event: Event = kind(**content)
        return event
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no event of this version of trimtab: {line.get('event')!r} ({error!r})") from error


def values_of(line: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a window's line, by the names of today.

    Where not every token was a target, `tokens_per_second` was once of targets, and the tokens that were read had a
    name of their own.
    """
    values: dict[str, Any] = line["values"]
    if "tokens_read_per_second" not in values:
        return values
    others = {name: value for name, value in values.items() if name != "tokens_read_per_second"}
    return others | {"tokens_per_second": values["tokens_read_per_second"]}


def _decision(content: Mapping[str, Any]) -> events.Decision:
    values = {name: value for name, value in content.items() if name != "kind"}
    if "value" in values:
        values["value"] = decoded(values["value"])
    for name in ("exclude_steps", "steps"):
        if name in values:
            values[name] = tuple((first, last) for first, last in values[name])
    decision: events.Decision = _DECISIONS[content["kind"]](**values)
    return decision


def _encoded(value: Any) -> Any:
    """Numbers, or a mapping of numbers, for JSON; what is no number yet (a tensor, say) is made one."""
    if isinstance(value, Mapping):
        return {str(name): _encoded(part) for name, part in value.items()}
    if value is None or isinstance(value, int):
        return value
    number = float(value)
    return number if math.isfinite(number) else str(number)


def decoded(value: Any) -> Any:
    """A number, list or mapping of numbers from JSON: "nan" and "inf" are floats again."""
    kind = type(value)
    if kind is float or kind is int:
        return value
    if kind is list:
        try:
            sum(value)  # the quickest way to see that all are numbers
        except TypeError:
            return [decoded(part) for part in value]
        return value
    if kind is dict:
        result = value
        for name, part in value.items():
            whole = decoded(part) if type(part) is not float else part
            if whole is not part:
                result = result if result is not value else dict(value)
                result[name] = whole
        return result
    return float(value) if kind is str else value


def _series(array: Any) -> Any:
    """One number when all steps have the same, else a list."""
    numbers = [_rounded(value) for value in np.asarray(array, dtype=np.float64).tolist()]
    return numbers[0] if numbers and numbers.count(numbers[0]) == len(numbers) else numbers


def _rounded(value: float) -> float | int | str:
    if not math.isfinite(value):
        return str(value)
    if not value.is_integer() or abs(value) >= 2**53:
        value = float(f"{value:.7g}")
    whole = value.is_integer() and abs(value) < 2**53 and (value != 0 or math.copysign(1.0, value) > 0)
    return int(value) if whole else value


_newest: tuple[StepsEnded, tuple[dict[str, Any], ...]] = (StepsEnded(1, 0, {}, {}), ())
"""The newest window and its lines: who writes the record and who follows the run ask for the same."""


def lines_of(event: Event) -> Iterable[dict[str, Any]]:
    """The lines of `event`; more than one for a window with many values. They are not to be changed."""
    global _newest
    if isinstance(event, ExaminationEnded):
        return _lines_of_examination(event)
    if not isinstance(event, StepsEnded):
        return (event_to_json(event),)
    newest, lines = _newest
    is_same = event.per_step is newest.per_step and event.values is newest.values
    if not is_same or (event.first_step, event.last_step) != (newest.first_step, newest.last_step):
        lines = tuple(_lines_of_window(event))
        _newest = event, lines
    return lines


def _lines_of_window(event: StepsEnded) -> Iterator[dict[str, Any]]:
    first, last = event.first_step, event.last_step
    varying = sum(bool(np.any(array[1:] != array[:1])) for array in event.per_step.values())
    num_lines = -(-(last - first + 1) * varying // VALUES_A_LINE) or 1
    steps_a_line = max(1, -(-(last - first + 1) // num_lines))
    values = list(event.values.items())
    num_with_values = -(-len(values) // VALUES_A_LINE) or 1
    for start in range(first, last + 1, steps_a_line):
        end = min(start + steps_a_line - 1, last)
        part = {name: array[start - first : end - first + 1] for name, array in event.per_step.items()}
        with_values = end == last and num_with_values == 1
        yield event_to_json(StepsEnded(start, end, part, event.values if with_values else {}))
    if num_with_values > 1:
        for begin in range(0, len(values), VALUES_A_LINE):
            yield event_to_json(StepsEnded(first, last, {}, dict(values[begin : begin + VALUES_A_LINE])))


def _lines_of_examination(event: ExaminationEnded) -> Iterator[dict[str, Any]]:
    """One for each `VALUES_A_LINE` metrics; samples and seconds are in the first."""
    metrics, samples, seconds = list(event.metrics.items()), event.samples, event.seconds
    for begin in range(0, max(1, len(metrics)), VALUES_A_LINE):
        part = dict(metrics[begin : begin + VALUES_A_LINE])
        yield event_to_json(ExaminationEnded(event.step, part, seconds, {}, {}, samples))
        samples, seconds = (), 0.0


def encode_line(content: Mapping[str, Any]) -> bytes:
    """The bytes of a line, checksum and line end included."""
    body = json.dumps(content, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
    return body[:-1] + _MARK + str(zlib.crc32(body)).encode() + b"}\n"


def decode_line(raw: bytes) -> dict[str, Any] | None:
    """The content of a line with or without its line end; None when it is torn, damaged or of another schema.

    In per_step, values, metrics and the like, "nan" and "inf" are floats again.
    """
    content = _checked(raw)
    return _whole(content) if content is not None and content.get("schema") == SCHEMA else None


def _checked(raw: bytes) -> dict[str, Any] | None:
    body, _, checksum = raw.rstrip(b"\n").rpartition(_MARK)
    if checksum[-1:] != b"}" or not checksum[:-1].isdigit() or zlib.crc32(b"}", zlib.crc32(body)) != int(checksum[:-1]):
        return None
    try:
        content = orjson.loads(body + b"}")
    except ValueError:
        content = _strange(body + b"}")
    return content if isinstance(content, dict) else None


def _strange(text: bytes) -> Any:
    """What json writes and orjson does not read: halves of surrogate pairs, as in paths that are no UTF-8."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _whole(content: dict[str, Any], raw: bytes = b"") -> dict[str, Any] | None:
    """`content` of the line `raw` with its numbers as numbers; None when it lacks what every line of its event has."""
    if not _PLACES.get(str(content.get("event")), _ANY_EVENT).fit(content):
        return None
    if content["event"] == "StepsEnded":
        keys = len(content) + 1 + len(content["per_step"]) + len(content["values"])
        if raw.count(b'"') == 2 * keys + 2:
            return content  # every quote belongs to a key, so that no number is a string: most lines are so
    try:
        return decoded_line(content)
    except ValueError:
        return None


def decoded_line(content: dict[str, Any]) -> dict[str, Any]:
    """`content` of a line, in which "nan" and "inf" are made floats again. Raises: ValueError for another string."""
    for name in _DECODED & content.keys():
        content[name] = decoded(content[name])
    return content


@final
class RecordWriter:
    """Appends lines to a record; goes on after the last complete line of an earlier process.

    Threads take turns: the watchdog's writes into the record of a loop that may just go on. While the disk keeps one of
    them, the others wait.
    """

    def __init__(
        self,
        path: Path,
        branch: int = 0,
        *,
        retries: int = 5,
        retry_seconds: float = 0.2,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`retries` are the further attempts that `sync` and `close` make to write what the disk refused.

        Raises: StorageError when the file cannot be opened.
        """
        self.branch = branch
        self._retries, self._retry_seconds, self._now = retries, retry_seconds, now
        last = _drop_torn_tail(path)
        self._sequence = 0 if last is None else last["sequence"]
        self._file = AppendFile(path)
        self._turn = threading.Lock()

    @property
    def sequence(self) -> int:
        """The number of the newest line."""
        return self._sequence

    @property
    def pending(self) -> int:
        """Bytes of lines that the disk has not taken yet."""
        return self._file.pending

    @property
    def problem(self) -> str:
        """Why the disk refused the newest of them, in the system's words."""
        return self._file.problem

    def append(self, *lines: Mapping[str, Any]) -> None:
        """Write lines that `event_to_json` made; never raises for the disk's sake, see `pending`."""
        with self._turn:
            written = b""
            for line in lines:
                self._sequence += 1
                content = {
                    "schema": SCHEMA,
                    "sequence": self._sequence,
                    "branch": self.branch,
                    "step": line["step"],
                    "time": round(self._now(), 3),
                    "event": line["event"],
                }
                written += encode_line(content | {key: line[key] for key in line if key not in content})
            self._file.append(written)

    def sync(self) -> None:
        """Bring all lines to the disk. Raises: StorageError when the retries are spent."""
        with self._turn:
            self._file.sync(retries=self._retries, retry_seconds=self._retry_seconds)

    def close(self) -> None:
        """Sync and close; closing again does nothing. Raises: StorageError."""
        with self._turn:
            self._file.close(retries=self._retries, retry_seconds=self._retry_seconds)


def _drop_torn_tail(path: Path) -> dict[str, Any] | None:
    """Cut off what a killed process left of a line, and give the newest valid line."""
    try:
        with open(path, "r+b") as file:
            newest: dict[str, Any] | None = None
            for index, (raw, start) in enumerate(lines_backwards(file)):
                newest = _checked(raw)
                if index == 0 and newest is not None:
                    file.seek(0, os.SEEK_END)
                    file.write(b"\n")
                elif index == 0:
                    file.truncate(start)
                if newest is not None:
                    check_schema(newest, path)
                    if _whole(newest) is not None:
                        return newest
            return None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{path}: cannot be opened for writing ({error.strerror})") from error


def lines_backwards(file: BinaryIO, block_bytes: int = 65_536) -> Iterator[tuple[bytes, int]]:
    """What lies between line ends, from the last (empty in a whole file) to the first, and its offset."""
    end = file.seek(0, os.SEEK_END)
    rest = b""
    while end > 0:
        begin = max(0, end - block_bytes)
        file.seek(begin)
        first, *others = (file.read(end - begin) + rest).split(b"\n")
        start = end + len(rest)
        for raw in reversed(others):
            start -= len(raw)
            yield raw, start
            start -= 1
        rest, end = first, begin
    yield rest, 0


@contextmanager
def no_garbage() -> Iterator[None]:
    """Within it nothing is searched for garbage: a hundred thousand objects live, a third of the time of reading."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@final
class RecordReader:
    """Reads a record as it grows: each call of `read` gives the lines that are new and complete."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        """Bytes read so far."""
        self.damaged = 0
        """Lines left out because their checksum is wrong; a torn tail is none of them."""
        self._sequence = 0

    def read(self) -> list[dict[str, Any]]:
        """The new lines, of all branches, in their order; nothing while there is no file.

        Raises: UsageError when a newer trimtab wrote them.
        """
        lines: list[dict[str, Any]] = []
        try:
            with no_garbage(), open(self.path, "rb") as file:
                file.seek(self.offset)
                for raw in file:
                    content = _checked(raw)
                    if content is None and not raw.endswith(b"\n"):
                        break
                    self.offset += len(raw)
                    if content is not None:
                        check_schema(content, self.path)
                        content = _whole(content, raw)
                    if content is None:
                        self.damaged += raw != b"\n"
                        continue
                    # A write that was repeated after an interruption may have left a line twice.
                    if content["sequence"] > self._sequence:
                        self._sequence = content["sequence"]
                        lines.append(content)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be read ({error.strerror})") from error
        return lines


def read_record(path: Path, *, all_branches: bool = False) -> list[dict[str, Any]]:
    """The lines of a record; of the surviving branch alone, unless `all_branches`.

    Raises: UsageError when a newer trimtab wrote it.
    """
    lines = RecordReader(path).read()
    return lines if all_branches else surviving(lines)


def surviving(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines without what later branches took back, in their order.

    A branch takes back the lines of earlier ones beyond the step where it opens. A checkpoint also holds the
    window that was not delivered yet; so a branch takes back the windows that it delivers again. Of a line that
    reaches beyond, the steps before stay.
    """
    lines = list(lines)
    if len({line["branch"] for line in lines}) <= 1:
        return lines
    first_windows: dict[int, int] = {}
    for line in lines:
        if line["event"] == "StepsEnded":
            first_windows.setdefault(line["branch"], line["first_step"])
    ends: dict[int, tuple[float, float]] = {}
    end, window_end = math.inf, math.inf
    for branch, start in sorted(branch_starts(lines).items(), reverse=True):
        ends[branch] = end, window_end
        end = min(end, start)
        window_end = min(window_end, start, first_windows.get(branch, math.inf) - 1)
    kept = (_until(line, ends[line["branch"]][line["event"] == "StepsEnded"]) for line in lines)
    return [line for line in kept if line is not None]


def _until(line: dict[str, Any], end: float) -> dict[str, Any] | None:
    """`line` as far as it does not lie beyond the step `end`; None when it does."""
    if line["step"] <= end:
        return line
    if line["event"] != "StepsEnded" or line["first_step"] > end or not line["per_step"]:
        return None
    num = int(end) - line["first_step"] + 1
    series = {name: part[:num] if isinstance(part, list) else part for name, part in line["per_step"].items()}
    return line | {"step": int(end), "last_step": int(end), "per_step": series, "values": {}}


def branch_starts(lines: Iterable[Mapping[str, Any]]) -> dict[int, int]:
    """Branch to the step where it opens: 0 for a run's first."""
    starts: dict[int, int] = {}
    for line in lines:
        if line["branch"] in starts:
            continue
        if line["event"] == "RunStarted":
            start = line["resumed_from"] if line["resumed_from"] is not None else line["step"]
        else:
            start = line["first_step"] - 1 if line["event"] == "StepsEnded" else line["step"]
        starts[line["branch"]] = start
    return starts


def read_attempts(path: Path) -> list[dict[str, Any]]:
    """The RunStarted lines of a record, quickly: what the next attempt and branch are counted from.

    Raises: StorageError when the record cannot be read.
    """
    try:
        with open(path, "rb") as file:
            candidates = [decode_line(raw) for raw in file if b'"event":"RunStarted"' in raw]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror})") from error
    return [line for line in candidates if line is not None and line["event"] == "RunStarted"]
