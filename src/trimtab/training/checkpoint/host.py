"""Tensors on the host: from a GPU into page-locked memory, while the next step computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor


@final
class HostCopies:
    """Copies by name, whose memory is used again by the next call: what was given before is then overwritten."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def take(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[torch.cuda.Event]]:
        """Contiguous copies of `tensors`, complete when all the events are; until then the tensors must not change.

        Page-locking the memory takes its time once: in the first call, or before it in `reserve`.
        """
        copies = {name: self._buffer(name, tensor) for name, tensor in tensors.items()}
        events = []
        for name, tensor in tensors.items():
            if not tensor.is_cuda:
                copies[name].copy_(tensor.detach())
        for device in {tensor.device for tensor in tensors.values() if tensor.is_cuda}:
            stream = self._streams.setdefault(device, torch.cuda.Stream(device))  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                for name, tensor in tensors.items():
                    if tensor.device == device:
                        copies[name].copy_(tensor.detach(), non_blocking=True)
                events.append(stream.record_event())
        return copies, events

    def reserve(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the memory for `tensors`, page-locked: seconds for gigabytes, which a first `take` then needs not."""
        for name, tensor in tensors.items():
            self._buffer(name, tensor)

    def _buffer(self, name: str, tensor: Tensor) -> Tensor:
        held = self._buffers.get(name)
        if held is None or held.shape != tensor.shape or held.dtype != tensor.dtype:
            held = self._buffers[name] = _empty(tensor)
        return held


def _empty(tensor: Tensor) -> Tensor:
    if tensor.is_cuda:
        try:
            return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        except RuntimeError:  # the system locks no more pages: the copy is slower then
            pass
    return torch.empty(tensor.shape, dtype=tensor.dtype)
