"""Micro-batches on their way to a GPU: each is copied while the one before it is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch

from trimtab.signals import Batch


@final
class CopyAhead:
    """Copies on a stream of its own, for which the device waits, and never the host.

    The memory of a copy belongs to the stream that computes, as that of all else: the copy begins when that stream has
    come to where the memory was taken, and that stream waits for the copy before it reads it, or gives it back. What
    was copied serves for that very batch alone, so that no order depends on it.
    """

    def __init__(self, device: torch.device, *, is_on: bool = True) -> None:
        """Not `is_on`, and on a processor, a batch is copied when it is asked for."""
        self._device = device
        on_side = is_on and device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if on_side else None  # type: ignore[no-untyped-call]
        self._sent: tuple[Batch, Batch] | None = None
        """A batch on the host, and its copy under way."""
        self.upcoming: Callable[[], Batch | None] = lambda: None
        """The first micro-batch of the next step, if it is ready by now."""

    def take(self, batch: Batch, following: Batch | None = None) -> Batch:
        """`batch` on the device. Begins to copy the one `following` in the same step, else that which is upcoming."""
        if self._stream is None:
            return batch.to(self._device)
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        sent, following = self._sent, self.upcoming() if following is None else following
        self._sent = None if following is None else (following, self._begin(following, self._stream, current))
        return sent[1] if sent is not None and sent[0] is batch else batch.to(self._device)

    def _begin(self, batch: Batch, stream: torch.cuda.Stream, current: torch.cuda.Stream) -> Batch:
        there = batch.each(lambda tensor: torch.empty_like(tensor, device=self._device))
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for tensor, source in zip(there.tensors().values(), batch.tensors().values(), strict=True):
                tensor.copy_(source, non_blocking=True)
        return there
