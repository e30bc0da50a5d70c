"""One attempt of another trainer's run, written as one of ours: directory, lock, facts, record, and the report."""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, final

import torch

from trimtab.events import Event, RunEnded, RunStarted, StepsEnded
from trimtab.runs.directory import RunDirectory
from trimtab.runs.environment import environment
from trimtab.runs.lock import Lock
from trimtab.runs.recorder import Recorder

Trainer = Literal["huggingface", "lightning"]
_OPEN: Final[weakref.WeakValueDictionary[Path, Recording]] = weakref.WeakValueDictionary()
"""The attempts of this process that have not ended, by the directory that was asked for."""


@final
class Recording:
    """An attempt, from `open` to `end`; a process that ends before that leaves it interrupted or failed."""

    def __init__(self, run: RunDirectory, lock: Lock, recorder: Recorder, started: RunStarted, report: bool) -> None:
        self.run = run
        self.started = started
        self._newest = {"step": started.step}
        self._lock, self._recorder, self._report = lock, recorder, report
        self._branch = started.branch
        self._ended = False
        recorder.record(started)
        self._at_exit = weakref.finalize(self, _left_open, lock, recorder, self._newest, id(_last_error()))

    @classmethod
    def open(
        cls,
        path: Path,
        source: Trainer,
        *,
        step: int,
        total_steps: int,
        facts: Mapping[str, Any],
        seed: int,
        report: bool,
    ) -> Recording:
        """An attempt that begins after `step` steps, in `path`, or beside it when a run in it is finished.

        Raises: TrimtabError when the directory cannot be written.
        """
        asked = path.absolute()
        left = _OPEN.get(asked)
        if left is not None:  # its trainer raised, and the same process trains again
            left.end("interrupted", "another attempt began")
        run = _free_directory(path, source)
        lock = Lock.acquire(run.lock)
        try:
            before = run.attempts()
            attempt = 1 + max((line["attempt"] for line in before), default=0)
            branch = 1 + max((line["branch"] for line in before), default=-1)
            surroundings = environment(seed=seed, source=source)
            if torch.cuda.is_available():
                surroundings["hardware"]["gpu"] = torch.cuda.get_device_name()
            run.write_json(run.environment, surroundings)
            run.write_json(run.facts, facts)
            started = RunStarted(
                step, attempt, branch, step if before else None, total_steps, dict(facts) | {"run": str(run.path)}
            )
            recording = cls(run, lock, Recorder.open(run, branch=branch), started, report)
        except BaseException:
            lock.close()
            raise
        _OPEN[asked] = recording
        return recording

    def record(self, event: Event) -> None:
        """Write an event."""
        self._recorder.record(event)
        step = event.last_step if isinstance(event, StepsEnded) else event.step
        self._newest["step"] = max(self._newest["step"], step)

    def begin_again(self) -> None:
        """Take back what was written in this attempt: a new branch from where it began."""
        self._branch += 1
        started = self.started
        self.record(RunStarted(started.step, started.attempt, self._branch, started.step, started.total_steps))

    def end(
        self,
        status: Literal["finished", "stopped", "interrupted", "failed"],
        reason: str,
        *,
        best: tuple[int | None, float | None] = (None, None),
        time_split: Mapping[str, float] | None = None,
    ) -> None:
        """Write the end, the report, and one line that says what was found; ending again does nothing."""
        if self._ended:
            return
        self._ended = True
        self._at_exit.detach()
        split = dict(time_split or {})
        self._recorder.record(RunEnded(self._newest["step"], status, reason, *best, None, sum(split.values()), split))
        try:
            self._recorder.close()
            if self._report:
                _write_report(self.run)
        finally:
            self._lock.close()

    def abandon(self) -> None:
        """Let go without an end, as a kill does; the record stays as far as it was written."""
        if not self._ended:
            self._ended = True
            self._at_exit.detach()
            with contextlib.suppress(Exception):
                self._recorder.close()
            self._lock.close()


def _free_directory(path: Path, source: Trainer) -> RunDirectory:
    """`path` when it is new or an attempt there can be gone on with; else the first `path-2`, `path-3` … that is."""
    for number in range(1, 1000):
        run = RunDirectory(path if number == 1 else path.with_name(f"{path.name}-{number}"))
        if not RunDirectory.is_run(run.path):
            run.path.mkdir(parents=True, exist_ok=True)
            return run
        if run.config.exists() or run.status() in ("finished", "stopped", "running"):
            continue
        if not run.environment.exists() or run.read_json(run.environment).get("source") == source:
            return run
    raise FileExistsError(f"{path}: a thousand runs of this name exist")


def _write_report(run: RunDirectory) -> None:
    from trimtab.report import write_report

    diagnosis = write_report(run)
    print(f"trimtab: {diagnosis.verdict}. {diagnosis.summary}  ({run.report})", file=sys.stderr)


def _last_error() -> BaseException | None:
    """The newest exception that nobody caught; also the one that is ending the process."""
    return getattr(sys, "last_value", None)


def _left_open(lock: Lock, recorder: Recorder, newest: Mapping[str, int], earlier: int) -> None:
    """What is written for an attempt that nobody ended: the process ends, or its trainer was dropped.

    Trainer tells its callbacks nothing of an exception; the interpreter remembers one (`earlier`: that before).
    """
    error = _last_error()
    if id(error) == earlier:
        error = None
    status: Literal["interrupted", "failed"] = (
        "interrupted" if error is None or isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
    )
    reason = "the trainer did not come to its end" if error is None else described(error)
    with contextlib.suppress(Exception):
        recorder.record(RunEnded(newest["step"], status, reason, None, None, None, 0.0))
        recorder.close()
        lock.close()


def described(error: BaseException) -> str:
    """An exception in a line."""
    text = str(error).strip()
    return type(error).__name__ + (f": {text.splitlines()[0][:300]}" if text else "")
