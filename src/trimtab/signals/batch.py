"""A micro-batch.

Shape suffixes, here and in data, model and objective:
B sequences in a micro-batch · T positions in a sequence · V vocabulary · D hidden size · H heads ·
G heads of keys and values · K size of a head · F feed-forward size · L layers · P parameters
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final

import torch
from torch import Tensor

IGNORED: Final = -100
"""A target that is not counted."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Tokens and what is asked about them. `count` is known on the host, before anything runs."""

    tokens_BT: Tensor
    """int64."""
    targets_BT: Tensor
    """int64; IGNORED where nothing is counted."""
    document_ids_BT: Tensor
    """int32; equal where two positions belong to one document; -1 on padding."""
    positions_BT: Tensor
    """int32; position inside the document."""
    sample_ids_B: Tensor
    """int64; which sequence of the data set this is; -1 for padding."""
    count: int
    """Targets that are counted."""

    def to(self, device: torch.device) -> Batch:
        """The same on `device`, without waiting for the copy."""
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self) if f.name != "count"}
        return replace(self, **moved)

    def pin_memory(self) -> Batch:
        """The same in page-locked memory, from which copies to a GPU do not wait."""
        return replace(self, **{f.name: getattr(self, f.name).pin_memory() for f in fields(self) if f.name != "count"})
