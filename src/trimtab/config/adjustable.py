"""What may be changed while a run goes on. Nothing else may.

A *setting* is a device scalar that the step reads: changing it costs nothing. A controller gives a factor;
the value in use is the schedule's, times one factor per controller. A *structure* change rebuilds the step
at a boundary, and a controller gives the new value itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Adjustable:
    """What a controller may change: its kind, and the range of factors (setting) or values (structure)."""

    kind: Literal["setting", "structure"]
    low: float
    high: float
    description: str


ADJUSTABLE: dict[str, Adjustable] = {
    "learning_rate": Adjustable("setting", 1e-4, 10.0, "factor on the scheduled learning rate"),
    "weight_decay": Adjustable("setting", 0.0, 100.0, "factor on the weight decay"),
    "clip_threshold": Adjustable("setting", 1e-3, 1e3, "factor on the threshold of clipping"),
    "dropout": Adjustable("setting", 0.0, 3.0, "factor on every dropout rate; a rate never exceeds 0.95"),
    "label_smoothing": Adjustable("setting", 0.0, 5.0, "factor on the label smoothing; it never exceeds 0.95"),
    "z_loss": Adjustable("setting", 0.0, 1e3, "factor on the weight of the z-loss"),
    "accumulation": Adjustable("structure", 1, 4096, "micro-batches in one update"),
    "batch_size": Adjustable("structure", 1, 2**20, "sequences in one update, rounded up to whole micro-batches"),
    "optimizer": Adjustable("structure", 1, 1, "1: the optimizer of optimizer_switch.to takes over, for good"),
    "unfreeze": Adjustable("structure", 1, 64, "so many entries of model.unfreeze are trained, for good"),
}
