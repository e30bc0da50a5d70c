"""The training loss that an evaluation prints beside its validation loss, as nanoGPT does, apart from that of steps.

Both are measured alike, on samples of either set, so that their difference is the gap.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from trimtab.runs.history import History
from trimtab.runs.importers.names import Meaning, meaning
from trimtab.runs.importers.table import Source, Table

SLICE: Final = "training_slice/loss"
GAP: Final = "generalization_gap"


def training_slice(table: Table, source: Source, meanings: Mapping[str, Meaning]) -> str | None:
    """The column of a text log that is one: a further training loss, on the very lines of the validation loss."""
    by_ours = {one.ours: name for name, one in meanings.items()}
    validation = by_ours.get("validation/loss")
    if source.format != "text" or validation is None or "train/loss" not in by_ours or SLICE in by_ours:
        return None
    rows = table.column(validation)[0]
    for name, one in meanings.items():
        known = meaning(source.short.get(name, name))
        is_loss = one.ours.startswith("user/") and known is not None and known.ours == "train/loss"
        if is_loss and np.array_equal(table.column(name)[0], rows):
            return name
    return None


def add_gap(history: History) -> None:
    """Validation less training loss, where both were measured."""
    of_training, of_validation = history.get(SLICE), history.get("validation/loss")
    if of_training is None or of_validation is None or history.has(GAP):
        return
    steps, left, right = np.intersect1d(of_validation.steps, of_training.steps, return_indices=True)
    history.add(GAP, steps, of_validation.mean[left] - of_training.mean[right])
