"""A logger for any loop: `TrainingLogger("runs/mine")` writes a run directory that all of trimtab reads."""

from __future__ import annotations

import contextlib
import operator
import os
import time
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar, final

import numpy as np

from trimtab.config.secrets import hidden
from trimtab.errors import StorageError, UsageError
from trimtab.integrations.artifacts import Artifact
from trimtab.integrations.late import Late, is_tensor, snapshot
from trimtab.integrations.mappings import RunConfig, Summary
from trimtab.integrations.measuring import Stopwatch, layer_norms
from trimtab.integrations.pictures import picture_now
from trimtab.integrations.recording import Recording, described, last_error
from trimtab.integrations.saving import save_columns
from trimtab.integrations.settings import as_mapping, facts_of_settings, total_steps_in
from trimtab.integrations.writer import Writer
from trimtab.runs.directory import RunDirectory
from trimtab.runs.files import write_json
from trimtab.runs.lock import live_holder
from trimtab.runs.printable import printable

Status = Literal["finished", "stopped", "interrupted", "failed"]
MAX_NAMES: Final = 5_000
MAX_BYTES_PER_HOUR: Final = 256 * 2**20
FINISH_SECONDS: Final = 30.0
_Batch = TypeVar("_Batch")


@final
class TrainingLogger:
    """Writes what a loop of your own logs into `run_dir`, for `trimtab show`, `doctor`, `report` and `runs`.

    No call waits for a device or a disk, but for a picture's file that `log_image` reads: a thread of its own converts
    and writes within a second. Names are brought to ours by a table (`val_loss` is validation/loss); unknown ones
    become `user/<name>`. Where more is logged than `max_names` names or `max_bytes_per_hour`, the rest is left out,
    told once, and counted in the record.
    """

    def __init__(
        self,
        run_dir: str | os.PathLike[str],
        config: Any = None,
        *,
        total_steps: int | None = None,
        resume: bool = False,
        name: str | None = None,
        report: bool = True,
        max_names: int = MAX_NAMES,
        max_bytes_per_hour: int = MAX_BYTES_PER_HOUR,
    ) -> None:
        """`resume`: go on with a run that is there already, from its newest step, or from where the first value that
        is logged lies; `total_steps`: how many are planned, where `config` does not say; `report`: whether `finish`
        asks the doctor.

        Raises: UsageError when there is a run already, or it is finished; StorageError when another process writes in
        it, or the directory cannot be written.
        """
        path = Path(run_dir)
        if max_names < 1 or max_bytes_per_hour < 1:
            raise UsageError(
                f"max_names and max_bytes_per_hour are at least 1. Received: {max_names}, {max_bytes_per_hour}"
            )
        self.config = RunConfig(as_mapping(config))
        self.total_steps = total_steps_in(self.config) if total_steps is None else int(total_steps)
        run = _directory(path, resume=resume)
        seed = self.config.get("seed")
        recording = Recording.begin(
            run,
            "loop",
            step=None,
            total_steps=self.total_steps,
            facts=facts_of_settings(self.config, self.total_steps),
            seed=seed if isinstance(seed, int) else 0,
            report=report,
        )
        self.run = run
        self.name = run.name if name is None else name
        self._writer = Writer(recording, max_names=max_names, max_bytes_per_hour=max_bytes_per_hour)
        self.summary = Summary(self._writer)
        self._begun, self._pid = time.perf_counter(), os.getpid()
        self._given = dict(self.config)
        self._step = recording.started.step + 1
        self._in_step: set[str] = set()
        self._is_first = True
        self._logged_at: int | None = None
        self._is_open, self._has_warned = True, False
        self._at_exit = weakref.finalize(self, _left, self._writer, self._pid, self._begun, id(last_error()))

    @property
    def id(self) -> str:
        """The name of the run's directory."""
        return self.run.name

    @property
    def dir(self) -> str:
        """The run's directory."""
        return str(self.run.path)

    @property
    def step(self) -> int:
        """The step that is logged next where none is given."""
        return self._step

    def log(self, values: Mapping[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        """Metrics of a step, in a mapping that may hold mappings; texts and pictures in it become artifacts.

        Without `step` it is the one after the last, unless `commit` is False: then the next call adds to it. With
        `step`, calls with the same one belong together; one that lies back does not set the counter back. An array of
        several values becomes a histogram.

        Raises: UsageError for values that are no mapping, and after `finish`.
        """
        if not isinstance(values, Mapping):
            raise UsageError(f"log takes a mapping of names to values. Received: {type(values).__name__}")
        if not self._is_ready():
            return
        at = self._at(step)
        row: dict[str, Any] = {}
        self._gather(at, "", values, row)
        if row:
            self._writer.put_row(at, row)
            self._logged_at = at
        self._count_from(at)
        self._in_step.clear()
        if commit or (commit is None and step is None):
            self._step = max(self._step, at + 1)

    def log_scalars(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Several metrics of one step: the same as `log`."""
        self.log(values, step)

    def log_scalar(self, name: str, value: Any, step: int | None = None) -> None:
        """One metric. Without `step`, a name that comes again begins the next step."""
        if not self._is_ready():
            return
        name = str(name)
        if step is None and name in self._in_step:
            self._step += 1
            self._in_step.clear()
        at = self._at(step)
        self._count_from(at)
        if at == self._step:
            self._in_step.add(name)
        self._writer.put_row(at, {name: snapshot(value)})
        self._logged_at = at

    def log_text(self, name: str, text: str, step: int | None = None) -> None:
        """A text: a sample, a note; one of more than 4,000 characters becomes a file."""
        self._put(step, "text", name, str(text), len(str(text)))

    def log_histogram(self, name: str, values: Any, step: int | None = None) -> None:
        """How values (an array, a tensor, a list) are spread: 64 bins, and how many are not finite.

        Raises: UsageError for what holds no numbers.
        """
        try:
            now = snapshot(values) if is_tensor(values) else np.array(values, np.float64)
        except (TypeError, ValueError) as error:
            raise UsageError(f"a histogram is of numbers. Received: {type(values).__name__} ({error})") from error
        self._put(step, "histogram", name, now, _size(now))

    def log_image(self, name: str, image: Any, step: int | None = None) -> None:
        """A picture, kept as PNG: an array or tensor [H, W], [H, W, C] or [C, H, W] (bytes, or floats in 0..1), a PIL
        image, a matplotlib figure, or a path, whose file is read here and now: it may be another one later.

        Raises: UsageError for what is no picture; OSError for a file that cannot be read.
        """
        now = picture_now(image)
        self._put(step, "picture", name, now, _size(now))

    def log_layers(self, model: Any, step: int | None = None) -> None:
        """The norms of a torch model's parameters and of their gradients, and `grad_norm` of all: before clipping, and
        before the gradients are set to zero. One copy from the device, which is not waited for."""
        if self._is_ready() and (norms := layer_norms(model)) is not None:
            self._writer.put_row(self._at(step), norms)

    def timed(self, loader: Iterable[_Batch]) -> Iterator[_Batch]:
        """The batches of `loader`; `data_seconds` and `step_seconds` go to the step that is logged with each of them.

        The latter is the whole of the loop's body, with what it does besides.
        """
        watch = Stopwatch()
        batches = iter(loader)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            watch.data_came()
            self._logged_at = None
            yield batch
            seconds = watch.step_ended()
            if self._logged_at is not None and self._is_open and self._is_ready():
                self._writer.put_row(self._logged_at, seconds)

    def rewind(self, step: int) -> None:
        """The loop goes back: what is logged from here on takes the place of all beyond `step`."""
        if self._is_ready():
            self._writer.rewind(_whole(step))
            self._step = _whole(step) + 1
            self._in_step.clear()

    def flush(self, timeout_seconds: float = FINISH_SECONDS) -> bool:
        """Wait until all is written that was logged so far; False when that takes too long."""
        return not self._is_open or self._writer.flush(timeout_seconds)

    def save_metrics(self, path: str | os.PathLike[str]) -> Path:
        """Every value that was logged, as .json, .csv or .parquet, under our names: one row a step.

        Raises: UsageError for another ending, or without pyarrow for .parquet; StorageError when it cannot be written.
        """
        self.flush()
        return save_columns(self.run.record, Path(path))

    def finish(
        self,
        status: Status | None = None,
        reason: str | None = None,
        *,
        exit_code: int = 0,
        timeout_seconds: float = FINISH_SECONDS,
    ) -> None:
        """End the run, write its report and say what the doctor found; finishing again does nothing.

        Without `status` it is "finished", or "failed" for an `exit_code` other than 0. Where the logger itself failed
        before, "finished" becomes "interrupted": a part of the run is not in the record.
        """
        if not self._is_open or os.getpid() != self._pid:
            return
        self._is_open = False
        self._at_exit.detach()
        status = ("failed" if exit_code else "finished") if status is None else status
        recording = self._writer.recording
        if dict(self.config) != self._given:
            with contextlib.suppress(StorageError):
                self.run.write_json(self.run.facts, facts_of_settings(self.config, self.total_steps))
        if reason is None:
            reason = f"exit code {exit_code}" if exit_code else "the loop came to its end"
        if _close(self._writer, timeout_seconds):
            if (failure := self._writer.failure) and status == "finished":
                status, reason = "interrupted", f"the logger fell silent: {failure}"
            summary = {**self._writer.newest, **self.summary.own}
            if self.summary.own:
                with contextlib.suppress(StorageError, OSError):
                    self.run.artifacts.mkdir(exist_ok=True)
                    write_json(self.run.artifacts / "summary.json", hidden({"summary": summary}))
            try:
                recording.end(status, reason, seconds=time.perf_counter() - self._begun)
            except Exception as error:  # the weights that were trained are still to be saved
                warnings.warn(f"trimtab: the end of the run could not be written: {described(error)}", stacklevel=2)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        elif isinstance(error, KeyboardInterrupt):
            self.finish("interrupted", "interrupted from the keyboard")
        else:
            self.finish("failed", described(error))

    def _is_ready(self) -> bool:
        if not self._is_open:
            raise UsageError("this run is finished: nothing more can be logged", hint="begin another run")
        if os.getpid() == self._pid:
            return True
        if not self._has_warned:  # a worker that was forked: the thread that writes is in its parent
            self._has_warned = True
            warnings.warn("trimtab: a forked process does not log into its parent's run", RuntimeWarning, stacklevel=3)
        return False

    def _at(self, step: int | None) -> int:
        return self._step if step is None else _whole(step)

    def _count_from(self, at: int) -> None:
        """Steps are counted on from `at`. Only the first one may lie before the counter (a loop that counts from 0, or
        goes on from an older checkpoint): else values that follow would fall on steps that have theirs."""
        if at > self._step or self._is_first:
            self._step = at
            self._in_step.clear()
        self._is_first = False

    def _gather(self, step: int, prefix: str, values: Mapping[str, Any], row: dict[str, Any]) -> None:
        for name, value in values.items():
            full = f"{prefix}{name}"
            if type(value) is float or type(value) is int:
                row[full] = value
            elif isinstance(value, Mapping):
                self._gather(step, f"{full}/", value, row)
            elif isinstance(value, str):
                self.log_text(full, value, step)
            elif _is_picture(value):
                self.log_image(full, value, step)
            else:
                now = snapshot(value)
                if (isinstance(now, np.ndarray) and now.size != 1) or (isinstance(now, Late) and now.host.numel() != 1):
                    self._put(step, "histogram", full, now, _size(now))
                else:
                    row[full] = now

    def _put(
        self, step: int | None, kind: Literal["text", "picture", "histogram"], name: str, content: Any, size: int
    ) -> None:
        if self._is_ready():
            self._writer.put_artifact(Artifact(self._at(step), kind, printable(str(name), limit=120), content, size))


def _directory(path: Path, *, resume: bool) -> RunDirectory:
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: a run is a directory, and this is a file")
    run = RunDirectory(path)
    if RunDirectory.is_run(path):
        if live_holder(run.lock) is None:  # else the lock refuses, with the process's number
            if not resume:
                raise UsageError(
                    f"{path}: there is a run already",
                    hint="resume=True goes on with it; another directory begins another",
                )
            if run.config.exists() or run.source not in ("loop", "config"):
                raise UsageError(
                    f"{path}: the run there was not made by a logger", hint="another directory begins another"
                )
        return run
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: cannot be created ({error.strerror})") from error
    return run


def _close(writer: Writer, timeout_seconds: float) -> bool:
    """Write all that waits; where the disk does not take it in time, leave it to the thread and say so."""
    if writer.close(timeout_seconds):
        return True
    writer.recording.leave()
    with contextlib.suppress(Exception):
        warnings.warn(
            f"trimtab: {writer.recording.run.path} does not take what was logged within {timeout_seconds:g} s: "
            "the run has no end and no report",
            RuntimeWarning,
            stacklevel=3,
        )
    return False


def _left(writer: Writer, pid: int, begun: float, earlier: int) -> None:
    """What is written for a run that nobody finished: the process ends, or its logger was dropped."""
    if os.getpid() != pid or not _close(writer, FINISH_SECONDS):
        return
    error = last_error()
    seconds = time.perf_counter() - begun
    with contextlib.suppress(Exception):
        if error is None or id(error) == earlier:
            reason = "the run was not finished: its process ended, or its logger was dropped"
            writer.recording.end("interrupted", reason, seconds=seconds)  # sys.exit(1) leaves no trace to tell it by
        else:
            status: Status = "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
            writer.recording.end(status, described(error), seconds=seconds)


def _whole(step: Any) -> int:
    """Raises: UsageError for what is no whole number from 0."""
    try:
        found = operator.index(step)
    except TypeError:
        found = int(step) if isinstance(step, float) and step.is_integer() else -1
    if not 0 <= found < 2**62:
        raise UsageError(f"step is a whole number from 0. Received: {step!r}")
    return found


def _size(content: Any) -> int:
    if isinstance(content, bytes | str):
        return len(content)
    if isinstance(content, Late):
        return int(content.host.numel() * content.host.element_size())
    return int(getattr(content, "nbytes", 8))


def _is_picture(value: Any) -> bool:
    if is_tensor(value) or isinstance(value, np.ndarray | np.generic):
        return False
    return hasattr(value, "savefig") or (hasattr(value, "getbands") and hasattr(value, "save"))
