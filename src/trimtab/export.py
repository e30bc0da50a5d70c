"""A run's model, written for other programs: `trimtab export RUN --to TARGET --out PATH`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from trimtab.errors import UsageError
from trimtab.training.hugging_face_folder import write_folder
from trimtab.training.trained import TrainedRun, open_trained


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    out: str
    target: str
    architecture: str
    """The class that loads it."""
    step: int
    weights: str
    largest_difference: float
    """Between the logits of the run's model and those of the one that was written and read again, on one text."""
    largest_logit: float
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def export(run: Path, target: str, out: Path, *, checkpoint: str = "best", weights: str | None = None) -> Exported:
    """Write the model of `run` at `out`, which must not be there yet, in the form that `target` names.

    `checkpoint` and `weights` are as `open_trained` takes them. What was written is read again, and must give the same
    logits. Raises: UsageError, ConfigError where the target has no such model, StorageError.
    """
    if target not in TARGETS:
        raise UsageError(f"--to: there is no such target. Received: {target!r}. Allowed: {', '.join(TARGETS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out: {out} is there already", hint="name a new folder")
    return TARGETS[target](open_trained(run, checkpoint, weights), out)


def _to_hugging_face(trained: TrainedRun, out: Path) -> Exported:
    one = write_folder(trained, out)
    step, weights = trained.checkpoint.step, trained.weights
    return Exported(
        str(out), "hugging-face", one.architecture, step, weights, one.largest_difference, one.largest_logit, one.bytes
    )


TARGETS: Final[dict[str, Callable[[TrainedRun, Path], Exported]]] = {"hugging-face": _to_hugging_face}
