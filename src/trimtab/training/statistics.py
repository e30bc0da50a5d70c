"""The running statistics of BatchNorm in a step: what a skipped update, or an attempt that failed, leaves of them."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trimtab.model import BatchNorm, MultilayerPerceptron


@final
class RunningStatistics:
    """Each micro-batch of a step moves them once, in its forward pass. A step whose update is skipped changes nothing:
    they are then as before it. So a batch that is not finite does not stay in them for good, either.

    Their values before a step are kept on the device, and are no state: at a boundary there are none.
    """

    def __init__(self, model: nn.Module) -> None:
        self._now = [
            buffer
            for module in model.modules()
            if isinstance(module, _BatchNorm)
            for buffer in module.buffers(recurse=False)
        ]
        self._before: list[Tensor] = [buffer.clone() for buffer in self._now]
        self._is_open = False
        rows = isinstance(model, MultilayerPerceptron) and any(isinstance(one, BatchNorm) for one in model.modules())
        self.least_rows = 2 if rows else 1
        """Of a micro-batch: of a single text there is no variance."""

    @property
    def are_any(self) -> bool:
        """Whether the model keeps some."""
        return bool(self._now)

    @torch.no_grad()
    def begin(self) -> None:
        """A step begins; where the one before it failed, what it left is taken back first."""
        if not self._now:
            return
        torch._foreach_copy_(*((self._now, self._before) if self._is_open else (self._before, self._now)))
        self._is_open = True

    @torch.no_grad()
    def settle(self, skip: Tensor) -> None:
        """Where `skip` is 1 they are as when the step began. A part of the update's program."""
        for now, before in zip(self._now, self._before, strict=True):
            now.copy_(torch.where(skip > 0, before, now))

    def end(self) -> None:
        """The step is over."""
        self._is_open = False
