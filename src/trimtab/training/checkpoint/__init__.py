"""All that a run needs to go on to the same bits: taken, written aside, verified, renamed, read back."""

from trimtab.training.checkpoint.files import kinds_held, read_judged, read_tensors, write_snapshot
from trimtab.training.checkpoint.keeper import Keeper
from trimtab.training.checkpoint.model_state import load_model
from trimtab.training.checkpoint.snapshot import Snapshot, restore, take

__all__ = [
    "Keeper",
    "Snapshot",
    "kinds_held",
    "load_model",
    "read_judged",
    "read_tensors",
    "restore",
    "take",
    "write_snapshot",
]
