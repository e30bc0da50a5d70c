"""What passes through the layers: how large, how heavy-tailed, and how many units have nothing to say.

Shape suffixes: B sequences · T positions · D hidden size · F feed-forward size · N counted positions · L layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from trimtab.model.structure import Function

FLAT: Final = 0.01
"""A slope below this passes no gradient to speak of; an output within it of 0 says nothing. The functions' own scale,
at which they turn, is 1."""


@final
@dataclass(frozen=True, slots=True)
class Distribution:
    """Of all values at once, in fp64."""

    mean: float
    rms: float
    """Root of the mean square."""
    kurtosis: float
    """Fourth central moment over the squared variance: 3 of a normal distribution, more with outliers; not a number
    where all values are alike."""


def distribution_of(values: Tensor) -> Distribution:
    """Of the values of a tensor of any shape; waits for the device."""
    x = values.double().flatten()
    mean = x.mean()
    centred = x - mean
    variance = centred.square().mean()
    moments = torch.stack((mean, x.square().mean().sqrt(), centred.pow(4).mean() / variance.square()))
    middle, rms, kurtosis = moments.tolist()
    return Distribution(middle, rms, kurtosis)


@final
class Units:
    """Which of a layer's units say anything, and where its activation function is flat, from several portions.

    A unit is dead that at no counted position gives more than `FLAT` from 0; where the function is exactly 0 below 0,
    as of ReLU, one that never gives anything but 0. A value is saturated where the slope of the function is below
    `FLAT`: nothing that is before it would learn from it.
    Source: Lu et al. 2019, arXiv 1903.06733 (dead ReLUs); the rest is own.
    """

    def __init__(self) -> None:
        self._largest_F: Tensor | None = None
        self._flat: list[Tensor] = []
        self._num_values = 0
        self._near = FLAT

    def add(self, argument_NF: Tensor, function: Function) -> None:
        """A portion: what goes into `function`, at counted positions alone."""
        if not len(argument_NF):
            return
        with torch.enable_grad():
            given_NF = argument_NF.detach().float().requires_grad_()
            output_NF = function(given_NF)
            (slope_NF,) = torch.autograd.grad(output_NF.sum(), given_NF)
        with torch.no_grad():
            minus_one = torch.full_like(given_NF[:1], -1.0)
            self._near = 0.0 if not function(minus_one).any() else FLAT
            largest_F = output_NF.detach().abs().amax(0)
            self._largest_F = largest_F if self._largest_F is None else torch.maximum(self._largest_F, largest_F)
            self._flat.append((slope_NF.abs() < FLAT).sum())
            self._num_values += slope_NF.numel()

    @property
    def dead_fraction(self) -> float:
        """Of the units; not a number before there is a portion. Waits for the device."""
        return float("nan") if self._largest_F is None else float((self._largest_F <= self._near).float().mean())

    @property
    def saturated_fraction(self) -> float:
        """Of the values; not a number before there is a portion. Waits for the device."""
        return float(sum(map(int, self._flat)) / self._num_values) if self._num_values else float("nan")


def counted(values: Tensor, counted_BT: Tensor | None) -> Tensor:
    """`values` [B, T, …] at counted positions, [N, …]; of another shape, or without `counted_BT`, all: [N, …]."""
    if counted_BT is None or values.shape[:2] != counted_BT.shape:
        return values.reshape(-1, values.shape[-1])
    return values[counted_BT.to(values.device)]
