"""Who owns parameters and gradients: everyone else sees views of them, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, final

import torch
from torch import Tensor, nn

from trimtab.errors import ConfigError
from trimtab.optimizer.parameter_groups import ParameterGroup

_ALIGNMENT: Final = 16
"""Elements: every parameter begins on a 64-byte boundary, as vector instructions and torch's allocator want."""


class Storage(Protocol):
    """Weights and gradients by name, all of them views that stay valid for the whole run."""

    @property
    def layout(self) -> str:
        """`flat` or `per_tensor`."""
        ...

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """fp32 master weights."""
        ...

    @property
    def gradients(self) -> Mapping[str, Tensor]:
        """The gradient of the update: fp32, or in the weights' own precision while one micro-batch is all."""
        ...

    def zero_gradients(self, *, in_parts: bool = False) -> None:
        """Begin a new update; `in_parts` when its gradient comes in several micro-batches."""
        ...

    def expect(self) -> None:
        """A backward pass begins."""
        ...

    def collect(self) -> None:
        """It is over: add what it left; parts are summed in fp32."""
        ...

    def refresh(self) -> None:
        """Make the model's weights anew from the masters, which were changed from outside."""
        ...

    def hand_back(self) -> None:
        """At the end: the model's parameters are the masters, without gradients."""
        ...


@final
class FlatStorage:
    """All parameters of a group in one buffer, all groups in one: one device or data parallel.

    Norms, updates and snapshots are then single passes over memory. Parameters must be fp32. With a narrower
    `compute_dtype` the model works on a copy in it, whose gradients have it too; updates act on the fp32 masters.
    """

    layout = "flat"

    def __init__(self, groups: Sequence[ParameterGroup], compute_dtype: torch.dtype = torch.float32) -> None:
        parameters = [(name, p) for group in groups for name, p in group.parameters.items()]
        _require_fp32(parameters)
        sizes = [-(-p.numel() // _ALIGNMENT) * _ALIGNMENT for _, p in parameters]
        device = parameters[0][1].device
        self.flat_weight = torch.zeros(sum(sizes), dtype=torch.float32, device=device)
        self.spans: dict[str, tuple[int, int]] = {}
        self.shapes: dict[str, torch.Size] = {}
        offset = 0
        for (name, parameter), size in zip(parameters, sizes, strict=True):
            self.spans[name] = (offset, offset + parameter.numel())
            self.shapes[name] = parameter.shape
            offset += size
        self.weights = self.views(self.flat_weight)
        for name, parameter in parameters:
            self.weights[name].copy_(parameter.detach())
        self.narrow = compute_dtype != torch.float32
        # Narrow gradients never add up in their own buffer: the parts of a step are summed in fp32.
        self._hands_over = self.narrow and device.type == "cuda"
        self.flat_compute = self.flat_weight.to(compute_dtype) if self.narrow else self.flat_weight
        self._own_gradient = torch.zeros_like(self.flat_compute)
        self._sums: Tensor | None = None
        self._own_views = self.views(self._own_gradient)
        self.flat_gradient, self.gradients = self._own_gradient, self._own_views
        compute = self.views(self.flat_compute)
        self._parameters = dict(parameters)
        for name, parameter in parameters:
            parameter.data = compute[name]
            parameter.grad = self.gradients[name]
        self.group_spans: list[tuple[int, int]] = []
        start = 0
        for group in groups:
            length = sum(-(-p.numel() // _ALIGNMENT) * _ALIGNMENT for p in group.parameters.values())
            self.group_spans.append((start, start + length))
            start += length

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """`flat`, cut as the parameters are."""
        return {name: flat[a:b].view(self.shapes[name]) for name, (a, b) in self.spans.items()}

    def zero_gradients(self, *, in_parts: bool = False) -> None:
        """One pass; nothing where backward's tensors take the place of the old."""
        if not self._hands_over:
            self._own_gradient.zero_()
        sums = in_parts and self.narrow
        if sums and self._sums is None:
            self._sums = torch.zeros_like(self.flat_weight)
        flat = self._sums if sums and self._sums is not None else self._own_gradient
        if flat is not self.flat_gradient:
            self.flat_gradient, self.gradients = flat, self.views(flat)
        if sums:
            flat.zero_()

    @property
    def is_replaced(self) -> bool:
        """Whether backward's tensors take the place of what gradients hold."""
        return self._hands_over and self.flat_gradient is self._own_gradient

    def expect(self) -> None:
        """On CUDA backward hands its tensors over; elsewhere it adds into the buffer."""
        if self._hands_over:
            for parameter in self._parameters.values():
                parameter.grad = None

    def collect(self) -> None:
        """On CUDA one pass, which is quicker than an addition for each parameter."""
        if self._hands_over:
            views = self._own_views
            given = {name: p.grad for name, p in self._parameters.items() if p.grad is not None}
            torch._foreach_copy_([views[name] for name in given], list(given.values()))
            if unused := [view for name, view in views.items() if name not in given]:
                torch._foreach_zero_(unused)  # they still hold the gradient of an earlier step
            for name, parameter in self._parameters.items():
                parameter.grad = views[name]
        if self.flat_gradient is not self._own_gradient:
            self.flat_gradient.add_(self._own_gradient)
            if not self._hands_over:
                self._own_gradient.zero_()

    def refresh(self) -> None:
        """One pass; nothing where the model works on the masters themselves."""
        if self.narrow:
            self.flat_compute.copy_(self.flat_weight)

    def hand_back(self) -> None:
        """No copy."""
        for name, parameter in self._parameters.items():
            parameter.grad = None
            parameter.data = self.weights[name]


@final
class PerTensorStorage:
    """Each parameter where it is: foreign optimizers, sharded and tensor-parallel models."""

    layout = "per_tensor"

    def __init__(self, groups: Sequence[ParameterGroup]) -> None:
        parameters = [(name, p) for group in groups for name, p in group.parameters.items()]
        _require_fp32(parameters)
        for _, parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.weights: dict[str, Tensor] = {name: p.detach() for name, p in parameters}
        self.gradients: dict[str, Tensor] = {name: p.grad for name, p in parameters if p.grad is not None}

    def zero_gradients(self, *, in_parts: bool = False) -> None:
        """All at once."""
        torch._foreach_zero_(list(self.gradients.values()))

    def expect(self) -> None:
        """Nothing: backward adds to the gradients."""

    def collect(self) -> None:
        """Nothing: backward sums in fp32."""

    def refresh(self) -> None:
        """Nothing: the model works on the masters themselves."""

    def hand_back(self) -> None:
        """Nothing."""


@torch.no_grad()
def left_over(storage: Storage) -> Tensor | None:
    """The norm of what gradients hold, once a step has begun and before its first backward pass: 0-dim, 0 where nothing
    of an earlier step is left; None where backward's tensors take the place of the old. Changes nothing."""
    if isinstance(storage, FlatStorage) and storage.is_replaced:
        return None
    norms_P = torch._foreach_norm(list(storage.gradients.values()), 2.0, torch.float32)
    left: Tensor = torch.linalg.vector_norm(torch.stack(norms_P))
    return left


def _require_fp32(parameters: Sequence[tuple[str, nn.Parameter]]) -> None:
    if not parameters:
        raise ConfigError("model: no parameter requires a gradient, so there is nothing to train")
    for name, parameter in parameters:
        if parameter.dtype != torch.float32:
            raise ConfigError(
                f"model: trainable parameters must be float32 (training.precision chooses what is computed in). "
                f"Received: {name} of {parameter.dtype}",
                hint="call model.float() before handing it over",
            )
