"""Eval mode for a while, buffers as they were, and what acts in training mode alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it `model` is in eval mode and no gradient is recorded; then each module is as it was.

    No `torch.inference_mode`: a foreign model that keeps a table it made there could not train with it later.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """After it each module of `model` has the buffers that it had, the same tensors with the same values.

    A module may write into a buffer, or put a new tensor in its place: `self.mean = 0.9 * self.mean + ...`.
    """
    held = [(module, dict(module._buffers)) for module in model.modules()]
    values = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, buffers in held:
                module._buffers.clear()
                module._buffers.update(buffers)
            for buffer, was in values:
                buffer.copy_(was)


def uncompiled() -> AbstractContextManager[None]:
    """Inside, compiled modules run as written: for inputs of ever new shapes."""
    # A process that has compiled nothing need not load the compiler, which takes seconds.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def in_backward() -> bool:
    """Whether a backward pass is running in this thread: there layers that are computed again run once more."""
    return torch._C._current_graph_task_id() != -1


def largest_dropout(model: nn.Module) -> dict[str, float]:
    """`largest_dropout` of torch's modules, as a fact of a model from elsewhere; nothing where there are none."""
    rates = [float(module.p) for module in model.modules() if isinstance(module, _DropoutNd)]
    return {"largest_dropout": max(rates)} if rates else {}
