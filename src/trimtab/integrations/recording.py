"""One attempt of another trainer's run, written as one of ours: directory, lock, facts, record, and the report."""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, final

from trimtab.config.secrets import hide
from trimtab.events import Event, RunEnded, RunStarted, StepsEnded
from trimtab.runs.described import describe_verdict
from trimtab.runs.directory import RunDirectory
from trimtab.runs.environment import environment, usable_cores
from trimtab.runs.lock import Lock
from trimtab.runs.privacy import private
from trimtab.runs.record import read_record
from trimtab.runs.recorder import Recorder

Trainer = Literal["huggingface", "lightning", "loop"]
_OPEN: Final[weakref.WeakValueDictionary[Path, Recording]] = weakref.WeakValueDictionary()
"""The attempts of this process that have not ended, by the directory that was asked for."""
_without_secrets: Final = private("on")


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
        _write(recorder, started)
        self._at_exit = weakref.finalize(self, _left_open, lock, recorder, self._newest, id(last_error()), os.getpid())

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
        recording = cls.begin(
            _free_directory(path, source),
            source,
            step=step,
            total_steps=total_steps,
            facts=facts,
            seed=seed,
            report=report,
        )
        _OPEN[asked] = recording
        return recording

    @classmethod
    def begin(
        cls,
        run: RunDirectory,
        source: Trainer,
        *,
        step: int | None,
        total_steps: int,
        facts: Mapping[str, Any],
        seed: int,
        report: bool,
    ) -> Recording:
        """An attempt in `run`; `step` None goes on after the newest step that is recorded there.

        Raises: StorageError when the directory cannot be written, or another live process writes in it.
        """
        lock = Lock.acquire(run.lock)
        try:
            before = run.attempts()
            attempt = 1 + max((line["attempt"] for line in before), default=0)
            branch = 1 + max((line["branch"] for line in before), default=-1)
            surroundings = environment(seed=seed, source=source)
            torch = sys.modules.get("torch")  # a loop without torch is not made to load it
            if torch is not None and torch.cuda.is_available():
                surroundings["hardware"]["gpu"] = torch.cuda.get_device_name()
            run.write_json(run.environment, surroundings)
            facts = {**_processors(), **facts}
            run.write_json(run.facts, facts)
            if step is None:
                step = newest_step(run) if before else 0
            started = RunStarted(
                step, attempt, branch, step if before else None, total_steps, dict(facts) | {"run": str(run.path)}
            )
            recording = cls(run, lock, Recorder.open(run, branch=branch), started, report)
        except BaseException:
            lock.close()
            raise
        return recording

    def record(self, event: Event) -> None:
        """Write an event, without secrets."""
        _write(self._recorder, event)
        step = event.last_step if isinstance(event, StepsEnded) else event.step
        self._newest["step"] = max(self._newest["step"], step)

    def tell_facts(self, facts: Mapping[str, Any]) -> None:
        """Add what is known by now to facts.json."""
        self.run.write_json(self.run.facts, self.run.read_json(self.run.facts) | dict(facts))

    def begin_again(self, step: int | None = None) -> None:
        """Take back what was written beyond `step`, or in this attempt: a new branch from there."""
        self._branch += 1
        started = self.started
        step = started.step if step is None else step
        self._newest["step"] = step
        self.record(RunStarted(step, started.attempt, self._branch, step, started.total_steps))

    def end(
        self,
        status: Literal["finished", "stopped", "interrupted", "failed"],
        reason: str,
        *,
        best: tuple[int | None, float | None] = (None, None),
        time_split: Mapping[str, float] | None = None,
        seconds: float | None = None,
    ) -> None:
        """Write the end, the report, and one line that says what was found; ending again does nothing.

        `seconds` are those of the attempt, where `time_split` does not tell.
        """
        if self._ended:
            return
        self._ended = True
        self._at_exit.detach()
        split = dict(time_split or {})
        seconds = sum(split.values()) if seconds is None else seconds
        _write(self._recorder, RunEnded(self._newest["step"], status, reason, *best, None, seconds, split))
        try:
            self._recorder.close()
            if self._report:
                _write_report(self.run)
        finally:
            self._lock.close()

    @property
    def pending(self) -> int:
        """Bytes of the record that the disk has not taken yet."""
        return self._recorder.pending

    def leave(self) -> None:
        """Leave all to a thread that hangs in writing: nothing is closed, and nothing waits for it at exit."""
        self._ended = True
        self._at_exit.detach()

    def abandon(self) -> None:
        """Let go without an end, as a kill does; the record stays as far as it was written."""
        if not self._ended:
            self._ended = True
            self._at_exit.detach()
            with contextlib.suppress(Exception):
                self._recorder.close()
            self._lock.close()


def _write(recorder: Recorder, event: Event) -> None:
    told = _without_secrets(event)
    if told is not None:
        recorder.record(told)


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


def newest_step(run: RunDirectory) -> int:
    """The newest step in the branch of a record that survived; 0 where there is none."""
    return max((int(line["step"]) for line in read_record(run.record)), default=0)


def _write_report(run: RunDirectory) -> None:
    from trimtab.report import write_report

    diagnosis = write_report(run)
    verdict = describe_verdict(diagnosis.verdict, diagnosis.beaten_by)
    print(f"trimtab: {verdict}. {diagnosis.summary}  ({run.report})", file=sys.stderr)


def last_error() -> BaseException | None:
    """The newest exception that nobody caught; also the one that is ending the process."""
    return getattr(sys, "last_value", None)


def _left_open(lock: Lock, recorder: Recorder, newest: Mapping[str, int], earlier: int, pid: int) -> None:
    """What is written for an attempt that nobody ended: the process ends, or its trainer was dropped.

    Trainer tells its callbacks nothing of an exception; the interpreter remembers one (`earlier`: that before).
    """
    if os.getpid() != pid:  # a forked child, in which nothing of this is to be written
        return
    error = last_error()
    if id(error) == earlier:
        error = None
    status: Literal["interrupted", "failed"] = (
        "interrupted" if error is None or isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
    )
    reason = "the trainer did not come to its end" if error is None else described(error)
    with contextlib.suppress(Exception):
        _write(recorder, RunEnded(newest["step"], status, reason, None, None, None, 0.0))
        recorder.close()
        lock.close()


def described(error: BaseException) -> str:
    """An exception in a line, without secrets: hidden before it is cut, since half of one has no shape."""
    text = hide(str(error).strip())
    return type(error).__name__ + (f": {text.splitlines()[0][:300]}" if text else "")


def _processors() -> dict[str, Any]:
    """Cores that this process may use, and threads and device of torch where a loop has loaded it."""
    facts: dict[str, Any] = {"cores": usable_cores()}
    torch = sys.modules.get("torch")
    if torch is not None:
        facts |= {"threads": torch.get_num_threads(), "device": "cuda" if torch.cuda.is_available() else "cpu"}
    return facts
