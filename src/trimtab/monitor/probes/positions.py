"""Which positions of a pass hold tokens of a text, and which are padding.

Shape suffixes: B sequences · T positions · S positions of a second text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self, final

import torch
from torch import Tensor, nn


@final
class Positions:
    """What a model is called with tells it; known from the moment on that the call begins."""

    def __init__(self) -> None:
        self._first_BT: Tensor | None = None
        self._second_BS: Tensor | None = None
        self._reads_two = False

    @classmethod
    @contextmanager
    def of_pass(cls, model: nn.Module) -> Iterator[Self]:
        """Inside, those of the newest call of `model`."""
        positions = cls()

        def called(module: nn.Module, given: tuple[Any, ...], options: dict[str, Any]) -> None:
            documents_BT, second_BS = options.get("document_ids_BT"), options.get("second_BS")
            positions._first_BT = None if documents_BT is None else _some(documents_BT >= 0)
            positions._second_BS = None if second_BS is None else _some(written(second_BS))
            positions._reads_two = second_BS is not None

        handle = model.register_forward_pre_hook(called, with_kwargs=True)
        try:
            yield positions
        finally:
            handle.remove()

    def counted(self, name: str) -> Tensor | None:
        """True at positions of a text, [B, T], in the module `name`: of the second one in a decoder that has one; None
        where all count."""
        return self._second_BS if self._reads_two and "decoder" in name else self._first_BT


def _some(counted: Tensor) -> Tensor | None:
    """None where all count: this waits for the device once, and choosing among values would for each layer."""
    return None if bool(counted.all()) else counted


def written(second_BS: Tensor) -> Tensor:
    """True up to the last token of a second text, whose padding is of token 0; at the first always."""
    length = second_BS.shape[1]
    places_S = torch.arange(length, device=second_BS.device)
    last_B1 = torch.where(second_BS != 0, places_S, 0).amax(1, keepdim=True)
    return places_S <= last_B1
