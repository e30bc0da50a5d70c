"""Goodput: how much of the time that a run took went into the model it ended with, and where the rest went.

Told by the record alone, over all attempts, those that were killed among them. A step is counted in the attempt that
computed it, though a later one may tell of it: a checkpoint holds the windows that were not told yet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from trimtab.runs import format
from trimtab.runs.directory import RunDirectory
from trimtab.runs.record import RecordReader, branch_starts
from trimtab.runs.start import resumes_from

CAUSES: Final = {
    "productive": "updates that are in the model",
    "start": "from the start of the process to the first step, without compiling",
    "compile": "compiling the model",
    "data": "waiting for data",
    "evaluation": "evaluations that count",
    "probe": "examinations that count",
    "checkpoint": "training stood still for a save",
    "redone": "steps, evaluations and examinations that were taken back, and what a kill or an error cut off",
    "skipped": "steps whose update was left out",
    "other": "all else: restoring at a rollback, writing at the end",
}
"""Cause to what is counted there."""
_JUDGING: Final = {"EvaluationEnded": "evaluation", "ExaminationEnded": "probe"}


@dataclass(frozen=True, slots=True)
class Goodput:
    """Seconds by cause over all attempts of a run."""

    seconds: Mapping[str, float]
    """Every one of `CAUSES`; none is negative, and they add up to `elapsed_seconds`."""
    elapsed_seconds: float
    down_seconds: float
    """Between attempts, when no process ran; no part of what elapsed."""
    attempts: int

    @property
    def productive(self) -> float:
        """Productive time as a part of what elapsed, 0 to 1."""
        return self.seconds["productive"] / self.elapsed_seconds if self.elapsed_seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "productive": self.productive,
            "elapsed_seconds": self.elapsed_seconds,
            "seconds": dict(self.seconds),
            "down_seconds": self.down_seconds,
            "attempts": self.attempts,
        }


def goodput(
    lines: Sequence[dict[str, Any]], *, resumes_from: int | None = None, running: bool = False
) -> Goodput | None:
    """What the lines of a record, of all branches, add up to; None where no step's time is in them.

    `resumes_from` is the step that the next attempt will go on from, where there will be one: what lies beyond it will
    be done again. While a run is `running`, what its last attempt has not told yet is no loss.
    """
    if not any("step_seconds" in line["per_step"] for line in lines if line["event"] == "StepsEnded"):
        return None
    attempts = _attempts(lines)
    ends = _ends(branch_starts(lines), resumes_from)
    for branch, steps in _steps(lines).items():
        attempt = next(one for one in attempts if branch in one.branches)
        kept = np.arange(steps.first, steps.first + len(steps.seconds)) <= ends[branch]
        skipped = kept & steps.skipped
        waited = np.minimum(steps.waited, steps.seconds)
        attempt.book("redone", float(steps.seconds[~kept].sum()))
        attempt.book("data", float(waited[kept].sum()))
        attempt.book("skipped", float((steps.seconds - waited)[skipped].sum()))
        attempt.book("productive", float((steps.seconds - waited)[kept & ~skipped].sum()))
    for attempt in attempts:
        for line in attempt.lines:
            if (cause := _JUDGING.get(line["event"])) is not None:
                kept_one = line["step"] <= ends[line["branch"]]
                attempt.book(cause if kept_one else "redone", _seconds(line["seconds"]))
            elif line["event"] == "CheckpointSaved":
                attempt.book("checkpoint", _seconds(line.get("stall_seconds", 0.0)))
        cut_off = not attempt.ended and not (running and attempt is attempts[-1])
        attempt.book("redone" if cut_off else "other", max(0.0, attempt.elapsed - attempt.known))
    seconds = {cause: sum(attempt.seconds[cause] for attempt in attempts) for cause in CAUSES}
    down = sum(max(0.0, later.begun - earlier.last) for earlier, later in pairwise(attempts))
    return Goodput(seconds, math.fsum(seconds.values()), down, len(attempts))


def goodput_of(run: RunDirectory) -> Goodput | None:
    """That of a run of ours, read from its files; None for another trainer's. Raises: StorageError, UsageError."""
    if run.trainer != "trimtab":
        return None
    status = run.status()
    lines = RecordReader(run.record).read()
    return goodput(lines, resumes_from=resumes_from(run, status), running=status == "running")


def shares(seconds: Mapping[str, float], digits: int = 1) -> dict[str, float]:
    """Parts of the whole in percent, rounded to `digits` so that they add up to 100; {} when all are 0."""
    whole = math.fsum(seconds.values())
    if whole <= 0:
        return {}
    units = 100 * 10**digits
    exact = {name: units * (part / whole) for name, part in seconds.items()}
    rounded = {name: math.floor(part) for name, part in exact.items()}
    by_rest = sorted(exact, key=lambda name: rounded[name] - exact[name])
    for name in by_rest[: units - sum(rounded.values())]:
        rounded[name] += 1
    return {name: part / 10**digits for name, part in rounded.items()}


def describe_goodput(found: Mapping[str, Any]) -> str:
    """What `Goodput.to_json` gave, in a line: `1m 23s in 2 attempts: productive 83.1 %, redone 9.0 %, …; down 4s`."""
    parts = shares(found["seconds"])
    rest = sorted((name for name in parts if name != "productive" and parts[name] > 0), key=lambda name: -parts[name])
    several = f" in {found['attempts']} attempts" if found["attempts"] > 1 else ""
    text = f"{format.duration(found['elapsed_seconds'])}{several}: "
    text += ", ".join(f"{name} {parts[name]:.1f} %" for name in ["productive", *rest] if name in parts)
    return text + (f"; down {format.duration(found['down_seconds'])} between them" if found["attempts"] > 1 else "")


@final
class _Attempt:
    """The lines of one process, and its time by cause."""

    def __init__(self, started: Mapping[str, Any]) -> None:
        facts = started.get("facts") or {}
        self.number = started["attempt"]
        self.branches: set[int] = set()
        self.lines: list[dict[str, Any]] = []
        self.seconds = dict.fromkeys(CAUSES, 0.0)
        self.ended = False
        """Whether it came to its own end, and told all; a kill and an error cut off what nobody hears of."""
        self.last = float(started["time"])
        """Unix seconds of its last sign of life."""
        start = _seconds(facts.get("start_seconds", 0.0))
        compiling = min(start, _seconds(((facts.get("plan") or {}).get("compile") or {}).get("seconds", 0.0)))
        self.begun = self.last - start
        self.elapsed = start
        self.book("start", start - compiling)
        self.book("compile", compiling)

    @property
    def known(self) -> float:
        return math.fsum(self.seconds.values())

    def book(self, cause: str, seconds: float) -> None:
        self.seconds[cause] += seconds

    def take(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        self.branches.add(line["branch"])
        self.ended = self.ended or (line["event"] == "RunEnded" and line.get("status") != "failed")
        self.seen(float(line["time"]))

    def seen(self, now: float) -> None:
        """It was alive at `now`; a clock that was set back takes nothing away."""
        self.elapsed += max(0.0, now - self.last)
        self.last = now


@dataclass(slots=True)
class _Steps:
    """What one branch computed, from step `first` on; 0 seconds where nothing was told."""

    first: int
    seconds: NDArray[np.float64]
    waited: NDArray[np.float64]
    skipped: NDArray[np.bool_]


def _attempts(lines: Iterable[dict[str, Any]]) -> list[_Attempt]:
    """The attempts, each with its lines; a branch belongs to the attempt that opened it."""
    attempts: list[_Attempt] = []
    for line in lines:
        if line["event"] == "RunStarted" and (not attempts or line["attempt"] != attempts[-1].number):
            attempt = _Attempt(line)
            if attempts:
                # The lock file tells how long the one before was alive; it cannot have lived into this one.
                seen = _seconds((line.get("facts") or {}).get("previous_heartbeat_seconds", 0.0))
                if attempts[-1].last < seen <= attempt.begun:
                    attempts[-1].seen(seen)
            attempts.append(attempt)
        elif not attempts:  # the line that opened it is damaged
            attempts.append(_Attempt({"attempt": 1, "time": line["time"]}))
        attempts[-1].take(line)
    return attempts


def _ends(starts: Mapping[int, int], resumes_from: int | None) -> dict[int, float]:
    """Branch to the last of its steps that no later branch takes back."""
    end = math.inf if resumes_from is None else float(resumes_from)
    ends: dict[int, float] = {}
    for branch, start in sorted(starts.items(), reverse=True):
        ends[branch] = end
        end = min(end, start)
    return ends


def _steps(lines: Sequence[dict[str, Any]]) -> dict[int, _Steps]:
    """Branch to the steps that it computed, whoever told of them."""
    starts = branch_starts(lines)
    ways = {branch: _way_back(starts, branch) for branch in starts}
    pieces: dict[int, list[tuple[int, int, dict[str, Any], int]]] = {}
    for line in lines:
        if line["event"] == "StepsEnded" and "step_seconds" in line["per_step"]:
            last = line["last_step"]
            for branch, start in ways[line["branch"]]:
                first = max(start + 1, line["first_step"])
                if first <= last:
                    pieces.setdefault(branch, []).append((first, last, line["per_step"], line["first_step"]))
                last = min(last, start)
                if last < line["first_step"]:
                    break
    return {branch: _joined(starts[branch] + 1, parts) for branch, parts in pieces.items()}


def _way_back(starts: Mapping[int, int], branch: int) -> list[tuple[int, int]]:
    """`branch` and those it stands on, newest first, with the step where each opens; what was left is passed over."""
    way: list[tuple[int, int]] = []
    for earlier in sorted((one for one in starts if one <= branch), reverse=True):
        if not way or starts[earlier] < way[-1][1]:
            way.append((earlier, starts[earlier]))
    return way


def _joined(first: int, pieces: Sequence[tuple[int, int, dict[str, Any], int]]) -> _Steps:
    num = max(last for _, last, _, _ in pieces) - first + 1
    steps = _Steps(first, np.zeros(num), np.zeros(num), np.zeros(num, dtype=bool))
    for begin, end, per_step, told_from in pieces:
        there, here = slice(begin - first, end - first + 1), slice(begin - told_from, end - told_from + 1)
        steps.seconds[there] = _series(per_step.get("step_seconds", 0.0), here)
        steps.waited[there] = _series(per_step.get("data_seconds", 0.0), here)
        steps.skipped[there] = _series(per_step.get("skipped", 0.0), here) > 0
    return steps


def _series(values: Any, part: slice) -> NDArray[np.float64]:
    """The part of a series of the record, in which one number stands for all."""
    array = np.asarray(values, dtype=np.float64)
    array = array if array.ndim == 0 else array[part]
    return np.where(np.isfinite(array) & (array > 0), array, 0.0)


def _seconds(value: Any) -> float:
    """A duration from a record: what is none is 0."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and value > 0 else 0.0
