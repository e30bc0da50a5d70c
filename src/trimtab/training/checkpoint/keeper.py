"""Saves, restores and prunes the checkpoints of one run."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

from trimtab.errors import CheckpointError
from trimtab.events import CheckpointSaved, Controller
from trimtab.runs.checkpoints import (
    best,
    checkpoint_folders,
    clean,
    latest,
    list_checkpoints,
    prune,
    step_folder,
    verify,
)
from trimtab.runs.directory import RunDirectory
from trimtab.training.checkpoint.files import read_snapshot, read_tensors, write_snapshot
from trimtab.training.checkpoint.snapshot import load_model, restore, take
from trimtab.training.progress import Progress
from trimtab.training.step import Step
from trimtab.training.windows import Windows


@final
class Keeper:
    """What the loop calls to save, to go back, and to take the best."""

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
        self.run, self._step, self._windows, self._progress = run, step, windows, progress
        self._controllers = tuple(controllers)
        self._keep_latest, self._keep_best = keep_latest, keep_best
        self._metric, self._better = metric, better
        self._description = dict(description)
        self.warnings: list[str] = []
        """Damaged checkpoints that were passed over."""

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
        """Restore the newest checkpoint that verifies; gives its step, or None when there is none yet."""
        clean(self.run.path)
        info = latest(self.run.path)
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
        return info.step

    def can_roll_back(self, before_step: int) -> bool:
        """Whether a checkpoint lies before `before_step`, by its manifest."""
        return any(info.step < before_step for info in list_checkpoints(self.run.path))

    def roll_back(self, before_step: int) -> int:
        """Restore the newest verified checkpoint before `before_step`; controllers keep their state."""
        for info in reversed(list_checkpoints(self.run.path, verified=True)):
            if info.step < before_step:
                restore(read_snapshot(info.path), self._step, self._windows, self._progress)
                return info.step
        raise CheckpointError(f"no verified checkpoint lies before step {before_step}: the run cannot go back")

    def restore_best(self) -> int:
        """Put the best checkpoint's weights into the model; gives its step."""
        info = best(self.run.path, self._metric, self._better)
        if info is None:
            raise CheckpointError(f"no verified checkpoint has {self._metric}")
        load_model(self._step.model, read_tensors(info.path, "model/"))
        return info.step
