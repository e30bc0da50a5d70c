"""Saves, restores and prunes the checkpoints of one run."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

from trimtab.errors import CheckpointError
from trimtab.events import CheckpointSaved, Controller
from trimtab.runs.checkpoints import (
    CheckpointInfo,
    best,
    checkpoint_folders,
    clean,
    list_checkpoints,
    prune,
    step_folder,
    verify,
)
from trimtab.runs.directory import RunDirectory
from trimtab.training.checkpoint.files import read_judged, read_snapshot, write_snapshot
from trimtab.training.checkpoint.model_state import require_saveable
from trimtab.training.checkpoint.rollback import PendingRollback, announce, forget, pending_rollback
from trimtab.training.checkpoint.snapshot import load_weights, restore, take
from trimtab.training.progress import Progress
from trimtab.training.step import Step
from trimtab.training.windows import Windows


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
    ) -> None:
        require_saveable(step.model)
        self.run, self._step, self._windows, self._progress = run, step, windows, progress
        self._controllers = tuple(controllers)
        self._keep_latest, self._keep_best = keep_latest, keep_best
        self._metric, self._better = metric, better
        self._description = dict(description)
        self._pending: PendingRollback | None = None
        self.warnings: list[str] = []
        """Damaged checkpoints that were passed over, and a rollback that was finished or cannot be."""

    def save(self, reason: str) -> CheckpointSaved:
        """Write, verify, and prune what need no longer be kept. Raises: StorageError."""
        begun = time.perf_counter()
        progress = self._progress
        snapshot = take(self._step, self._windows, progress, self._controllers)
        folder = self.run.checkpoints / step_folder(progress.step)
        description = {
            **self._description,
            "step": progress.step,
            "branch": progress.branch,
            "reason": reason,
            "metrics": progress.metrics if progress.metrics_step == progress.step else {},
        }
        size = write_snapshot(snapshot, folder.with_name(f".tmp-{folder.name}-{os.getpid()}"), folder, description)
        forget(self.run)
        prune(
            self.run.path,
            self._keep_latest,
            self._keep_best,
            self._metric,
            self._better,
            verified_step=progress.step,
        )
        path = str(folder.relative_to(self.run.path))
        return CheckpointSaved(progress.step, path, size, time.perf_counter() - begun, reason)

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
        restore(read_snapshot(info.path), self._step, self._windows, self._progress, self._controllers)
        if pending is not None:
            pending.apply(self._progress)
            pending.apply_to_controllers(self._controllers)
            self.warnings.append(f"the rollback that was decided at step {pending.step} is finished first")
        return info.step

    def _newest(self, before_step: int | None = None) -> CheckpointInfo | None:
        """The newest checkpoint before a step, or of all, whose every byte is as it was written."""
        for info in reversed(list_checkpoints(self.run.path)):
            if (before_step is None or info.step < before_step) and not verify(info.path):
                return info
        return None

    def can_roll_back(self, before_step: int) -> bool:
        """Whether a checkpoint lies before `before_step`, by its manifest."""
        return any(info.step < before_step for info in list_checkpoints(self.run.path))

    def announce_rollback(self, before_step: int, plan: Mapping[str, Any]) -> None:
        """Write down durably what a rollback to before `before_step` keeps. Raises: StorageError."""
        self._pending = announce(self.run, self._progress, self._controllers, before_step, plan)

    def roll_back(self) -> int:
        """Restore the newest verified checkpoint before the onset announced; controllers keep their state."""
        pending, self._pending = self._pending, None
        if pending is None:
            raise ValueError("a rollback is announced before it is carried out")
        info = self._newest(pending.before_step)
        if info is None:
            raise CheckpointError(
                f"no verified checkpoint lies before step {pending.before_step}: the run cannot go back"
            )
        restore(read_snapshot(info.path), self._step, self._windows, self._progress)
        pending.apply(self._progress)
        return info.step

    def restore_best(self) -> int:
        """Put the best checkpoint's weights into the model; gives its step."""
        info = best(self.run.path, self._metric, self._better)
        if info is None:
            raise CheckpointError(f"no verified checkpoint has {self._metric}")
        load_weights(self._step, read_judged(info.path))
        return info.step
