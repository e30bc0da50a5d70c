"""The step's two programs as CUDA graphs: recorded once, then replayed with one call each.

A graph reads and writes the same memory in every replay: the batch is copied into it, settings are device scalars, the
ring keeps its cursor on the device. Random numbers come from torch's generator of the device, which a graph reads anew
in every replay, so that `set_randomness` before it decides what is drawn.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from trimtab.signals import Batch

if TYPE_CHECKING:
    from trimtab.training.step import Step


@final
class Captured:
    """What `capture` gives."""

    def __init__(
        self,
        batch: Batch,
        in_parts: bool,
        accumulate: torch.cuda.CUDAGraph,
        updates: dict[bool, torch.cuda.CUDAGraph],
    ) -> None:
        self.in_parts = in_parts
        """Whether a step has several micro-batches: their gradients are then summed apart."""
        self._accumulate, self._updates = accumulate, updates
        self._inputs = batch.tensors()
        self._shapes = {name: tensor.shape for name, tensor in self._inputs.items()}

    def fits(self, batch: Batch) -> bool:
        """Whether `batch` has the shape that was captured."""
        return {name: tensor.shape for name, tensor in batch.tensors().items()} == self._shapes

    def accumulate(self, batch: Batch) -> None:
        """Replay the program of a micro-batch on `batch`."""
        for name, tensor in batch.tensors().items():
            self._inputs[name].copy_(tensor, non_blocking=True)
        self._accumulate.replay()

    def update(self, ends_window: bool) -> None:
        """Replay the program of an update."""
        self._updates[ends_window].replay()


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all captures: cuBLAS keeps two workspaces, of 32 MB each, for every stream that it has seen."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def capture(step: Step, batch: Batch, *, in_parts: bool) -> Captured:
    """Record both programs for batches of the shape of `batch`; weights, state, ring and randomness stay as they are.

    Waits for the device.
    """
    step.captured = None
    torch.cuda.synchronize(step.device)  # a save may still read what a warm-up changes for a while
    kept = held(step)
    inputs = batch.each(lambda tensor: tensor.to(step.device, copy=True))
    stream = _stream(step.device)
    stream.wait_stream(torch.cuda.current_stream(step.device))
    graphs = [torch.cuda.CUDAGraph() for _ in range(3)]
    try:
        step.holds.fill_(1.0)
        step.set(share=0.5 if in_parts else 1.0)
        with torch.random.fork_rng(devices=[step.device]), torch.cuda.stream(stream):
            for _ in range(3):
                step.begin(in_parts=in_parts)
                step.accumulate_program(inputs)
                for ends_window in (True, False):
                    step.update_program(ends_window)
                    step.ring.cursor.zero_()
            step.begin(in_parts=in_parts)
            torch.cuda.synchronize(step.device)
            # Another thread may pin memory meanwhile.
            pool, mode = torch.cuda.graph_pool_handle(), "thread_local"
            with torch.cuda.graph(graphs[0], pool=pool, stream=stream, capture_error_mode=mode):
                step.accumulate_program(inputs)
            for graph, ends_window in ((graphs[1], True), (graphs[2], False)):
                with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode=mode):
                    step.update_program(ends_window)
    finally:  # memory may run out, and the step is then tried again without what was held
        torch.cuda.current_stream(step.device).wait_stream(stream)
        step.begin(in_parts=in_parts)
        step.holds.zero_()
        with torch.no_grad():
            for tensor, before in kept:
                tensor.copy_(before)
    return Captured(inputs, in_parts, graphs[0], {True: graphs[1], False: graphs[2]})


def held(step: Step) -> list[tuple[Tensor, Tensor]]:
    """What a program changes even where an update is held, with copies: the ring, the loss scale, buffers."""
    tensors = [step.ring.rows, step.ring.cursor, *step.model.buffers()]
    if step.precision.scaler is not None:
        tensors += step.precision.scaler.state().values()
    for transform in step.transforms:
        tensors += transform.state_by_name().values()
    return [(tensor, tensor.clone()) for tensor in tensors]
