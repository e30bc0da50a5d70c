"""What reading a foreign log gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trimtab.runs.history import History
from trimtab.runs.importers.trainers import Trainer


@dataclass(frozen=True, slots=True)
class Imported:
    """A foreign log as a history."""

    history: History
    format: str
    """What it was taken for: "huggingface", "lightning", "keras", "wandb", "tensorboard", "mlflow", "trackio",
    "neptune", "csv", "jsonl", "json", "parquet" or "text"."""
    source: Path
    """The file that was read."""
    names: Mapping[str, str]
    """Their names to ours, of all columns that are in the history."""
    unused: tuple[str, ...] = ()
    """Their names of the columns that are not in it."""
    notes: tuple[str, ...] = ()
    """What was lost, guessed or changed, and what the log cannot tell; one sentence each."""
    target: Trainer | Literal["text"] = "text"
    """Whose words remedies are put in."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else the file tells: ours (`planned_steps`, `epochs` …) and theirs, under `log`."""
