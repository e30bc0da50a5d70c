"""Saves, restores and prunes the checkpoints of one run."""

from __future__ import annotations

import os
import time
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Literal, final

from trimtab.errors import CheckpointError, StorageError
from trimtab.evaluation import forget_losses
from trimtab.events import AlertRaised, CheckpointSaved, Controller
from trimtab.runs.checkpoints import (
    CheckpointInfo,
    best,
    checkpoint_folders,
    clean,
    list_checkpoints,
    prune,
    shared_bytes,
    step_folder,
    verify,
)
from trimtab.runs.directory import RunDirectory
from trimtab.training.checkpoint.clock import SaveClock
from trimtab.training.checkpoint.differential import AlteredBaseError
from trimtab.training.checkpoint.files import read_judged, read_snapshot, write_snapshot
from trimtab.training.checkpoint.host import HostCopies
from trimtab.training.checkpoint.model_state import require_saveable
from trimtab.training.checkpoint.rollback import PendingRollback, announce, forget, pending_rollback
from trimtab.training.checkpoint.snapshot import Snapshot, large_tensors, load_weights, restore, take
from trimtab.training.progress import Progress
from trimtab.training.step import Step
from trimtab.training.watchdog import Watchdog
from trimtab.training.windows import Windows

RETRIES: Final = 2
RETRY_SECONDS: Final = 1.0
"""Between attempts to write what the disk did not take."""


@final
class Keeper:
    """What the loop calls to save, to go back, and to take the best.

    Raises: ConfigError when the model keeps what no checkpoint can hold.
    """

    def __init__(
        self,
        run: RunDirectory,
        *,
        step: Step,
        windows: Windows,
        progress: Progress,
        controllers: Sequence[Controller],
        keep_latest: int,
        keep_best: int,
        metric: str,
        better: Literal["lower", "higher"],
        description: Mapping[str, Any],
        failure_stops: bool = True,
        watchdog: Watchdog | None = None,
        clock: SaveClock | None = None,
        keep_every_steps: int | None = None,
        keep_every_seconds: float | None = None,
        differential: bool = False,
    ) -> None:
        require_saveable(step.model)
        self.run, self._step, self._windows, self._progress = run, step, windows, progress
        self._controllers = tuple(controllers)
        self._keep_latest, self._keep_best = keep_latest, keep_best
        self._metric, self._better = metric, better
        self._description = dict(description)
        self._failure_stops = failure_stops
        self._watchdog, self._clock = watchdog or Watchdog(), clock or SaveClock()
        self._differential = differential
        self._keep_every_steps, self._keep_every_seconds = keep_every_steps, keep_every_seconds
        self._pending: PendingRollback | None = None
        self._copies = HostCopies()
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._preparing: Future[None] | None = None
        self._writing: Future[CheckpointSaved] | None = None
        self._may_fail = False
        self._planned_step: int | None = None
        """That of the newest planned save, which one at the same step replaces."""
        self._done: list[CheckpointSaved] = []
        self._troubles: deque[str] = deque()
        self._waited = 0.0
        """Seconds that somebody waited for writes since the last save was begun."""
        self.warnings: list[str] = []
        """Damaged checkpoints that were passed over, and a rollback that was finished or cannot be."""

    def prepare(self) -> None:
        """Take the memory for copies from a GPU in the background, while the run begins."""
        if self._step.device.type == "cuda":
            self._preparing = self._writer.submit(self._copies.reserve, large_tensors(self._step))

    def save(
        self, reason: str, *, background: bool = False, needed: bool = True, planned: bool = True
    ) -> list[CheckpointSaved | AlertRaised]:
        """Copy the state, then write, verify, and prune what need no longer be kept; gives the saves that are complete.

        In the background only the copy, and a save that is not complete yet, keep the caller waiting. One that is
        not `needed` may fail, where the run is to go on then. One that is not `planned` is none to go back to.

        Raises: StorageError, also that of an earlier save.
        """
        self._collect(wait=True)
        self._clock.restart()
        begun = time.perf_counter()
        if self._preparing is not None:
            self._preparing.result()
            self._preparing = None
        progress = self._progress
        if planned:
            self._planned_step = progress.step
        snapshot = take(self._step, self._windows, progress, self._controllers, self._copies)
        description = {
            **self._description,
            "step": progress.step,
            "branch": progress.branch,
            "reason": reason,
            "planned": self._planned_step == progress.step,
            "metrics": dict(progress.metrics) if progress.metrics_step == progress.step else {},
        }
        waited, self._waited = self._waited, 0.0
        stall = waited + time.perf_counter() - begun if background else None
        self._writing = self._writer.submit(self._write_watched, snapshot, description, begun, stall)
        self._may_fail = not needed and not self._failure_stops
        return self.finished(wait=not background)

    def finished(self, *, wait: bool = False) -> list[CheckpointSaved | AlertRaised]:
        """The saves that were completed since the last call, and what the disk refused. Raises: StorageError for one
        that failed."""
        self._collect(wait=wait)
        done, self._done = self._done, []
        alerts: list[AlertRaised] = []
        while self._troubles:  # the writing thread may add to them
            alerts.append(AlertRaised(self._progress.step, "write_failed", self._troubles.popleft()))
        return [*alerts, *done]

    def close(self, *, wait: bool = True) -> None:
        """Wait for what is being written; may be called again. Nothing is begun after it."""
        self._writer.shutdown(wait=wait)

    def _collect(self, *, wait: bool) -> None:
        if self._writing is None or not (wait or self._writing.done()):
            return
        writing, self._writing = self._writing, None
        begun = time.perf_counter()
        self._watchdog.rest("training")
        try:
            self._done.append(writing.result())
        except StorageError as error:
            if not self._may_fail:
                raise
            self._troubles.append(f"{error.message}; the run goes on without it")
            warnings.warn(self._troubles[-1], stacklevel=2)
        finally:
            self._waited += time.perf_counter() - begun
            self._watchdog.beat(f"step {self._progress.step}")

    def _write_watched(self, *arguments: Any) -> CheckpointSaved:
        try:
            return self._write(*arguments)
        finally:
            self._watchdog.rest("saving")

    def _write(
        self, snapshot: Snapshot, description: Mapping[str, Any], begun: float, stall: float | None
    ) -> CheckpointSaved:
        """What is done in the background."""
        what = f"saving step {description['step']}"
        alive = partial(self._watchdog.beat, what, lane="saving")
        alive()
        folder = self.run.checkpoints / step_folder(description["step"])
        temporary = folder.with_name(f".tmp-{folder.name}-{os.getpid()}")
        newest = list_checkpoints(self.run.path)[-1:] if self._differential else []
        base = newest[0].path if newest else None
        for retries_left in reversed(range(RETRIES + 1)):
            try:
                if self._differential:
                    size = write_snapshot(snapshot, temporary, folder, description, alive, base, differential=True)
                else:
                    size = write_snapshot(snapshot, temporary, folder, description, alive)
                break
            except StorageError as error:
                if isinstance(error, AlteredBaseError) or retries_left == 1:
                    base = None  # it may not even be readable; before, a full disk has less room for a whole one
                if not retries_left:
                    raise
                self._troubles.append(f"{error.message}; it is tried again")
                warnings.warn(self._troubles[-1], stacklevel=2)
                time.sleep(RETRY_SECONDS)
        shared = shared_bytes(folder) if self._differential else 0
        forget(self.run)
        try:
            prune(
                self.run.path,
                self._keep_latest,
                self._keep_best,
                self._metric,
                self._better,
                every_steps=self._keep_every_steps,
                every_seconds=self._keep_every_seconds,
                verified_step=description["step"],
            )
        except (OSError, StorageError) as error:  # the checkpoint is complete: what was to go stays for once
            warnings.warn(f"older checkpoints stay until the next save: {error}", stacklevel=2)
        seconds = time.perf_counter() - begun
        path = str(folder.relative_to(self.run.path))
        reason = description["reason"]
        stall = seconds if stall is None else stall
        return CheckpointSaved(description["step"], path, size, seconds, reason, stall, shared)

    def resume(self) -> int | None:
        """Restore the newest checkpoint that verifies; gives its step, or None when there is none yet.

        A rollback that was decided and not saved is finished: the checkpoint is then the newest before its onset.
        """
        clean(self.run.path)
        pending = pending_rollback(self.run)
        info = self._newest() if pending is None else self._newest(pending.before_step)
        if pending is not None and info is None:
            self.warnings.append(
                f"the rollback that was decided at step {pending.step} is given up: no checkpoint before step "
                f"{pending.before_step} is whole"
            )
            pending, info = None, self._newest()
        for folder in checkpoint_folders(self.run.path):
            if (info is None or folder.name > info.path.name) and (problems := verify(folder)):
                self.warnings.append(f"{folder.name} is damaged and was passed over: {'; '.join(problems)}")
        if info is None and self.warnings:
            raise CheckpointError(
                f"no checkpoint of {self.run.path} is whole: {'; '.join(self.warnings)}",
                hint=f"to begin this run anew, move {self.run.checkpoints} away",
            )
        if info is None:
            return None
        snapshot = read_snapshot(info.path, is_verified=True)
        restore(snapshot, self._step, self._windows, self._progress, self._controllers)
        if pending is not None:
            pending.apply(self._progress)
            pending.apply_to_controllers(self._controllers)
            forget_losses(self.run, info.step)
            self.warnings.append(f"the rollback that was decided at step {pending.step} is finished first")
        return info.step

    def _newest(self, before_step: int | None = None) -> CheckpointInfo | None:
        """The newest checkpoint of all whose every byte is as it was written; before a step, the newest planned one."""
        infos = list_checkpoints(self.run.path)[::-1]
        if before_step is not None:
            # Where an interruption saved must not decide how far a run goes back; it serves where there is no other.
            infos = sorted((info for info in infos if info.step < before_step), key=lambda info: not info.planned)
        return next((info for info in infos if not verify(info.path)), None)

    def can_roll_back(self, before_step: int) -> bool:
        """Whether a whole checkpoint lies before `before_step`, by every byte; one that is being written counts."""
        self._collect(wait=True)
        with self._reading():
            return self._newest(before_step) is not None

    def announce_rollback(self, before_step: int, plan: Mapping[str, Any]) -> None:
        """Write down durably what a rollback to before `before_step` keeps. Raises: StorageError."""
        self._collect(wait=True)
        self._pending = announce(self.run, self._progress, self._controllers, before_step, plan)

    def roll_back(self) -> int:
        """Restore the newest verified checkpoint before the onset announced; controllers keep their state."""
        pending, self._pending = self._pending, None
        if pending is None:
            raise ValueError("a rollback is announced before it is carried out")
        with self._reading():
            info = self._newest(pending.before_step)
            if info is None:
                raise CheckpointError(
                    f"no verified checkpoint lies before step {pending.before_step}: the run cannot go back"
                )
            restore(read_snapshot(info.path, is_verified=True), self._step, self._windows, self._progress)
            pending.apply(self._progress)
        forget_losses(self.run, info.step)
        return info.step

    def restore_best(self) -> int:
        """Put the best checkpoint's weights into the model; gives its step."""
        self._collect(wait=True)
        with self._reading():
            info = best(self.run.path, self._metric, self._better)
            if info is None:
                raise CheckpointError(f"no verified checkpoint has {self._metric}")
            weights = read_judged(info.path, self._metric.partition("@")[2], is_verified=True)
            load_weights(self._step, weights)
        return info.step

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Inside, whole checkpoints are read, which gives no sign of life and on a slow disk takes long each time."""
        self._watchdog.beat("reading checkpoints", is_long=True)
        yield
        self._watchdog.beat(f"step {self._progress.step}")
