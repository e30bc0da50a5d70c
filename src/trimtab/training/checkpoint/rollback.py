"""A rollback on its way: what it keeps, on disk before its decision is in the record, until it is saved.

The decision in the record is what counts. A kill before it leaves a file that means nothing; a kill after it, a
rollback that the next attempt finishes, with the same exclusions, factors and states of controllers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from trimtab.events import Controller
from trimtab.runs import RunDirectory, read_record
from trimtab.runs.checkpoints import list_checkpoints
from trimtab.runs.files import python_value, read_json, sync_folder, write_json
from trimtab.training.progress import Progress

_KEPT: Final = (
    *("attempt", "branch", "factors", "accumulation", "micro_batch_size", "configured_batch", "seconds", "stop"),
)
"""What of the progress is not that of the checkpoint gone back to; the data plan besides."""


@dataclass(frozen=True, slots=True)
class PendingRollback:
    """Where it was decided, where it goes, and what it keeps."""

    step: int
    branch: int
    before_step: int
    progress: Mapping[str, Any]
    controllers: Mapping[str, Any]

    def apply(self, progress: Progress) -> None:
        """Put what is kept into `progress`, which the checkpoint gave."""
        for name, value in self.progress.items():
            setattr(progress, name, value)

    def apply_to_controllers(self, controllers: Sequence[Controller]) -> None:
        """Give them the state in which they decided."""
        for controller in controllers:
            if controller.name in self.controllers:
                controller.load_state(python_value(self.controllers[controller.name]))


def announce(
    run: RunDirectory,
    progress: Progress,
    controllers: Sequence[Controller],
    before_step: int,
    plan: Mapping[str, Any],
) -> PendingRollback:
    """Write down what is kept, durably; `plan` is the data plan that leaves out what the decision says."""
    state = progress.state()
    pending = PendingRollback(
        progress.step,
        progress.branch,
        before_step,
        {name: state[name] for name in _KEPT} | {"plan": dict(plan)},
        {controller.name: controller.state() for controller in controllers},
    )
    write_json(run.rollback, asdict(pending))
    return pending


def pending_rollback(run: RunDirectory) -> PendingRollback | None:
    """The rollback that was decided, and of which nothing was saved; what means nothing is removed."""
    if not run.rollback.exists():
        return None
    content = read_json(run.rollback)
    del content["schema"]
    pending = PendingRollback(**content)
    saved = any(info.branch > pending.branch for info in list_checkpoints(run.path))
    if not saved and _was_decided(run, pending):
        return pending
    forget(run)
    return None


def forget(run: RunDirectory) -> None:
    """It is saved, or means nothing."""
    if run.rollback.exists():
        run.rollback.unlink()
        sync_folder(run.path)


def _was_decided(run: RunDirectory, pending: PendingRollback) -> bool:
    return any(
        line["event"] == "DecisionTaken"
        and (line["branch"], line["step"]) == (pending.branch, pending.step)
        and (line["decision"]["kind"], line["outcome"]) == ("Rollback", "taken")
        for line in read_record(run.record, all_branches=True)
    )
