"""A micro-batch.

Shape suffixes, here and in data, model and objective:
B sequences in a micro-batch · T positions in a sequence · S positions in a second one · V vocabulary, or classes ·
D hidden size · H heads · G heads of keys and values · K size of a head · F feed-forward size · L layers · P parameters
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import torch
from torch import Tensor

IGNORED: Final = -100
"""A target that is not counted."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Tokens and what is asked about them. `count` is known on the host, before anything runs."""

    tokens_BT: Tensor
    """int64."""
    targets: Tensor
    """What is asked; IGNORED where nothing is counted. Of tokens int64 [B, T] (with a second sequence [B, S]); of
    whole sequences int64 classes [B], float32 labels of 0 and 1 [B, V], or float32 values [B]."""
    document_ids_BT: Tensor
    """int32; equal where two positions belong to one document; -1 on padding."""
    positions_BT: Tensor
    """int32; position inside the document."""
    sample_ids_B: Tensor
    """int64; which sequence of the data set this is; -1 for padding."""
    count: int
    """Targets that are counted."""
    second_BS: Tensor | None = None
    """int64; the tokens of a second sequence: what a decoder has read when it predicts each target, or a text of its
    own that belongs to the first, padded with -1."""

    def each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same with every tensor changed."""
        changed: dict[str, Any] = {name: change(tensor) for name, tensor in self.tensors().items()}
        return replace(self, **changed)

    def tensors(self) -> dict[str, Tensor]:
        """Those that are there, by name."""
        return {name: value for name in _NAMES if isinstance(value := getattr(self, name), Tensor)}

    def to(self, device: torch.device) -> Batch:
        """The same on `device`, without waiting for the copy."""
        return self.each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same in page-locked memory, from which copies to a GPU do not wait."""
        return self.each(lambda tensor: tensor.pin_memory())


_NAMES: Final = tuple(field.name for field in fields(Batch))
"""Known once: a captured step asks for the tensors of each micro-batch several times."""
