"""How a run ended, in a word and in a sentence."""

from __future__ import annotations

from typing import Literal

from trimtab.events import RunEnded, Stop
from trimtab.runs import format
from trimtab.training.progress import Progress

Status = Literal["finished", "stopped", "interrupted", "failed"]


def ending(stop: Stop | None, progress: Progress, total_steps: int, restored: int | None) -> tuple[Status, str]:
    """Status and reason of a run that all steps or `stop` ended, and whose weights were `restored` of some step."""
    reason = f"all {format.counted(total_steps, 'step')} done" if stop is None else stop.reason
    if restored not in (None, progress.best_step):
        reason += f"; of the best no whole checkpoint is kept, so the next best was restored, of step {restored}"
    all_done = progress.step >= total_steps and (stop is None or stop.exit_code == 0)
    if stop is not None and all_done:  # at the last step a decision to stop saves nothing
        reason = f"all {format.counted(total_steps, 'step')} done; at the last, {reason}"
    if all_done:
        return "finished", reason
    return ("failed" if stop is not None and stop.exit_code else "stopped"), reason


def run_ended(
    progress: Progress, status: Status, reason: str, restored: int | None = None, seconds: float = 0.0
) -> RunEnded:
    """The event, for a run that stands at `progress`."""
    best_step, best_value, split = progress.best_step, progress.best_value, dict(progress.seconds)
    return RunEnded(progress.step, status, reason, best_step, best_value, restored, seconds, split)
