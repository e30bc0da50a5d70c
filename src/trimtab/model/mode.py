"""Eval mode for a while."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn


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


def uncompiled() -> AbstractContextManager[None]:
    """Inside, compiled modules run as written: for inputs of ever new shapes."""
    # A process that has compiled nothing need not load the compiler, which takes seconds.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def in_backward() -> bool:
    """Whether a backward pass is running in this thread: there layers that are computed again run once more."""
    return torch._C._current_graph_task_id() != -1
