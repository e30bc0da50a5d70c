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
        """fp32 gradients, into which backward accumulates."""
        ...

    def zero_gradients(self) -> None:
        """Begin a new window of accumulation."""
        ...


@final
class FlatStorage:
    """All parameters of a group in one buffer, all groups in one: one device or data parallel.

    Norms, updates and snapshots are then single passes over memory. Parameters must be fp32.
    """

    layout = "flat"

    def __init__(self, groups: Sequence[ParameterGroup]) -> None:
        parameters = [(name, p) for group in groups for name, p in group.parameters.items()]
        _require_fp32(parameters)
        sizes = [-(-p.numel() // _ALIGNMENT) * _ALIGNMENT for _, p in parameters]
        device = parameters[0][1].device
        self.flat_weight = torch.zeros(sum(sizes), dtype=torch.float32, device=device)
        self.flat_gradient = torch.zeros_like(self.flat_weight)
        self.spans: dict[str, tuple[int, int]] = {}
        self.shapes: dict[str, torch.Size] = {}
        offset = 0
        for (name, parameter), size in zip(parameters, sizes, strict=True):
            self.spans[name] = (offset, offset + parameter.numel())
            self.shapes[name] = parameter.shape
            offset += size
        self.weights = self.views(self.flat_weight)
        self.gradients = self.views(self.flat_gradient)
        for name, parameter in parameters:
            self.weights[name].copy_(parameter.detach())
            parameter.data = self.weights[name]
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

    def zero_gradients(self) -> None:
        """One pass."""
        self.flat_gradient.zero_()


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

    def zero_gradients(self) -> None:
        """All at once."""
        torch._foreach_zero_(list(self.gradients.values()))


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
