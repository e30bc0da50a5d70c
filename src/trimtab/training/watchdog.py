"""Sees that a run stands still, says where, and ends the process.

A thread of its own compares what each lane (training, saving) last said it was doing with what it said before. Only
time in which the thread itself could run counts, so that a process that was stopped, or a machine that slept, is not
taken for a frozen one.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal, final

from trimtab.errors import ResourceError, TrimtabError
from trimtab.events import ArtifactLogged, Event, RunEnded
from trimtab.runs import RunDirectory, format
from trimtab.runs.checkpoints import newest_step
from trimtab.runs.printable import printable
from trimtab.runs.program import command
from trimtab.training.progress import Progress

Lane = Literal["training", "saving"]
FIRST_TIMES: Final = 10.0
"""Times as long as usual that the first of a kind, which may compile, and reading a whole checkpoint may take."""
FIRST_SECONDS: Final = 1800.0
"""What these may take at least."""
_LAST_WORDS_SECONDS: Final = 5.0
"""For the record of a frozen run: where the disk is what froze, writing there would not end either."""
_PACKAGE: Final = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True, eq=False)
class _Mark:
    """What a lane said last; one said anew is another."""

    what: str
    limit: float


@dataclass(frozen=True, slots=True)
class Freeze:
    """What stands still, since when, and where its stacks are."""

    what: str
    seconds: float
    where: str
    """The innermost line of trimtab that the frozen thread is in; '' where that is not known."""
    stacks: Path | None

    def __str__(self) -> str:
        where = f", at {self.where}" if self.where else ""
        file = self.stacks and f"{self.stacks.parent.name}/{self.stacks.name}"
        stacks = f"; the stacks of all threads are in {file}" if file else ""
        return f"no progress for {format.duration(self.seconds)} in {self.what}{where}{stacks}"


@final
class Watchdog:
    """Notices when a lane says nothing for `seconds`; without them it never does."""

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self._marks: dict[Lane, _Mark] = {}
        self._kinds: dict[Lane, str] = {}
        self._done: set[str] = set()
        self._threads: dict[Lane, int] = {}

    def beat(self, what: str, kind: str = "", *, lane: Lane = "training", is_long: bool = False) -> None:
        """Go on to `what`, which is another sign of life also when it is the same as before.

        The first of a `kind` may take longer; it is over when the lane says something else. So may what `is_long`.
        """
        if self._seconds is None:
            return
        if (previous := self._kinds.get(lane)) is not None:
            self._done.add(previous)
        self._kinds[lane] = kind
        is_first = kind != "" and kind not in self._done
        limit = max(FIRST_TIMES * self._seconds, FIRST_SECONDS) if is_first or is_long else self._seconds
        self._threads[lane] = threading.get_ident()
        self._marks[lane] = _Mark(what, limit)

    def rest(self, lane: Lane) -> None:
        """What is waited for in this lane is watched in another, or is over."""
        self._marks.pop(lane, None)

    @contextlib.contextmanager
    def watching(self, folder: Path, frozen: Callable[[Freeze], None]) -> Iterator[None]:
        """Inside of the context, write the stacks to a file in `folder` and call `frozen`, once a freeze.

        It is called from a thread of its own.
        """
        if self._seconds is None:
            yield
            return
        ended = threading.Event()
        with _StacksFile(folder) as stacks:
            arguments = (ended, self._seconds, frozen, stacks)
            thread = threading.Thread(target=self._watch, args=arguments, name="watchdog", daemon=True)
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join()
                self._marks.clear()

    def _watch(
        self, ended: threading.Event, seconds: float, frozen: Callable[[Freeze], None], stacks: _StacksFile
    ) -> None:
        interval = min(1.0, seconds / 10)
        still: dict[Lane, float] = {}
        seen: dict[Lane, _Mark | None] = {}
        before = time.monotonic()
        # Where nothing of Python runs, this thread does not either: then the stacks are written without it.
        stacks.unless_called_again(2 * seconds)
        while not ended.wait(interval):
            stacks.unless_called_again(2 * seconds)
            now = time.monotonic()
            if now - before > 2 * seconds:
                stacks.forget()  # the process was stopped, and goes on
            elapsed, before = min(now - before, 2 * interval), now
            lanes: tuple[Lane, ...] = ("training", "saving")
            for lane in lanes:
                mark = self._marks.get(lane)
                still[lane] = still.get(lane, 0.0) + elapsed if mark is not None and mark is seen.get(lane) else 0.0
                seen[lane] = mark
                if mark is not None and still[lane] > mark.limit:
                    stacks.write()
                    frozen(Freeze(mark.what, still[lane], _line_of(self._threads[lane]), stacks.path))
                    still[lane] = float("-inf")  # told once, until it moves


@final
class _StacksFile:
    """`stacks-<pid>.txt`, which is taken away where nothing was written in it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"stacks-{os.getpid()}.txt"
        self._file: IO[bytes] | None = None

    def __enter__(self) -> _StacksFile:
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(exist_ok=True)
            for left in self.path.parent.glob("stacks-*.txt"):  # by a process that was killed
                if not left.stat().st_size:
                    left.unlink()
            self._file = self.path.open("ab", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            faulthandler.cancel_dump_traceback_later()
            self._file.close()
            with contextlib.suppress(OSError):
                if not self.path.stat().st_size:
                    self.path.unlink()

    def unless_called_again(self, seconds: float) -> None:
        if self._file is not None:
            faulthandler.dump_traceback_later(seconds, file=self._file)

    def forget(self) -> None:
        """Empty the file: what was written is no longer so."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.truncate(0)

    def write(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                faulthandler.dump_traceback(self._file)


def _line_of(thread: int) -> str:
    frame = sys._current_frames().get(thread)
    for summary in reversed(traceback.extract_stack(frame)) if frame is not None else ():
        path = Path(summary.filename)
        if path.is_relative_to(_PACKAGE):
            return f"{path.relative_to(_PACKAGE)}:{summary.lineno} in {summary.name}"
    return ""


def on_freeze(
    run: RunDirectory, progress: Progress, record: Callable[[Event], None], *, ends_process: bool
) -> Callable[[Freeze], None]:
    """Tells the record and the standard error of a freeze, and ends the process with the code of a ResourceError.

    Nothing is saved: what is on the disk counts. A process that is not only ours is warned and goes on.
    """

    def tell(freeze: Freeze) -> None:
        reason, step = str(freeze), progress.step
        stacks = None if freeze.stacks is None else str(freeze.stacks.relative_to(run.path))
        record(ArtifactLogged(step, "text", "stacks", reason, stacks))
        if ends_process:
            seconds = dict(progress.seconds)
            record(RunEnded(step, "failed", reason, progress.best_step, progress.best_value, None, 0.0, seconds))

    def frozen(freeze: Freeze) -> None:
        # A thread, so that it is left behind where the disk hangs: in its own write, or waiting for the loop's to end.
        talks = threading.Thread(target=tell, args=(freeze,), daemon=True)
        talks.start()
        talks.join(_LAST_WORDS_SECONDS)
        if not ends_process:
            warnings.warn(f"{freeze} (training.watchdog_seconds)", stacklevel=2)
            return
        found: list[str] = []
        looks = threading.Thread(target=lambda: found.append(_goes_on_from(run)), daemon=True)
        looks.start()
        looks.join(_LAST_WORDS_SECONDS)
        error = ResourceError(
            f"{freeze} (training.watchdog_seconds)",
            hint=f"`{command('resume', str(run.path))}` goes on from {found[0] if found else 'the newest checkpoint'}",
        )
        with contextlib.suppress(OSError):
            os.write(2, f"\nerror: {printable(str(error), lines=True)}\n".encode(errors="replace"))
        os._exit(error.exit_code)

    return frozen


def _goes_on_from(run: RunDirectory) -> str:
    with contextlib.suppress(TrimtabError):
        if (step := newest_step(run.path)) is not None:
            return f"step {format.count(step)}"
    return "the beginning: no checkpoint had been saved"
