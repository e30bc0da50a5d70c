"""What passes through the layers: how large, how heavy-tailed, and how many units have nothing to say.

Shape suffixes: B sequences · T positions · D hidden size · F feed-forward size · N counted positions · L layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor, nn

from trimtab.events import Histogram
from trimtab.model.structure import Function, activations_read, streams_read
from trimtab.monitor.probes.histogram import histograms
from trimtab.monitor.probes.positions import Positions
from trimtab.signals import Examined, Readings

FLAT: Final = 0.01
"""A slope below this passes no gradient to speak of; an output within it of 0 says nothing. The functions' own scale,
at which they turn, is 1."""

_AT_ONCE: Final = 1 << 22
"""Values that are widened to fp64 at once, 32 MiB."""


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
    portions = torch.split(values.reshape(-1), _AT_ONCE)
    num = values.numel()
    mean = torch.stack([one.sum(dtype=torch.float64) for one in portions]).sum() / num
    sums: list[Tensor] = []
    for one in portions:
        centred = one.double() - mean
        squares = centred.square()
        sums.append(torch.stack((squares.sum(), squares.square().sum())))
    variance, fourth = torch.stack(sums).sum(0) / num
    moments = torch.stack((mean, (variance + mean.square()).sqrt(), fourth / variance.square()))
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


@final
class ActivationExamination:
    """Mean, root mean square, kurtosis and histogram of each layer's output, how the residual stream grows from layer
    to layer, and how many units are dead and values saturated. Padding is left out.

    Layers are those that `model/structure.py` finds. How much the stream grows is the root mean square that comes out
    over the one that goes in; over a whole stack, from the first layer's input to the last one's output.
    """

    name = "activations"

    def __init__(self, seed: int) -> None:
        self._outputs: dict[str, tuple[Distribution, Distribution]] = {}
        self._histograms: dict[str, Histogram] = {}
        self._units: dict[str, Units] = {}

    @contextmanager
    def attach(self, model: nn.Module) -> Iterator[None]:
        """Hooks on the layers and their activation functions."""
        self._outputs, self._histograms, self._units = {}, {}, {}
        with Positions.of_pass(model) as positions:

            def stream(name: str, before: Tensor, after: Tensor) -> None:
                mask_BT = positions.counted(name)
                out = counted(after, mask_BT)
                self._outputs[name] = (distribution_of(counted(before, mask_BT)), distribution_of(out))
                self._histograms |= histograms({f"layer/{name}/activation": out})

            def unit(name: str, argument: Tensor, function: Function) -> None:
                of_layer = self._units.setdefault(name, Units())
                mask_BT = positions.counted(name)
                if argument.dim() == 3 and mask_BT is not None and argument.shape[:2] == mask_BT.shape:
                    for row_TF, mask_T in zip(argument, mask_BT, strict=True):  # a sequence at a time: these are large
                        of_layer.add(row_TF[mask_T], function)
                else:
                    of_layer.add(counted(argument, mask_BT), function)

            with streams_read(model, stream), activations_read(model, unit):
                yield

    def read(self, examined: Examined) -> Readings:
        """Up to six values and a histogram a layer, and three of the whole."""
        readings = Readings(histograms=self._histograms)
        for name, (before, after) in self._outputs.items():
            of_layer = f"layer/{name}"
            readings.layers |= {
                f"{of_layer}/activation_mean": after.mean,
                f"{of_layer}/probe_activation_rms": after.rms,
                f"{of_layer}/activation_kurtosis": after.kurtosis,
                f"{of_layer}/residual_growth": _ratio(after.rms, before.rms),
            }
        for name, units in self._units.items():
            readings.layers |= {
                f"layer/{name}/dead_fraction": units.dead_fraction,
                f"layer/{name}/saturated_fraction": units.saturated_fraction,
            }
        if self._outputs:
            kurtoses = [after.kurtosis for _, after in self._outputs.values()]
            readings.metrics["probe/activation_kurtosis"] = max(kurtoses, key=_nan_last)
            readings.metrics["probe/residual_growth"] = max(self._growth(), key=_nan_last)
        if self._units:
            fractions = [units.dead_fraction for units in self._units.values()]
            readings.metrics["probe/dead_fraction"] = sum(fractions) / len(fractions)
        self._outputs, self._histograms, self._units = {}, {}, {}
        return readings

    def _growth(self) -> list[float]:
        """Of each stack of layers, whose names differ in a number alone."""
        stacks: dict[str, tuple[float, float]] = {}
        for name, (before, after) in self._outputs.items():
            stack = name.rpartition(".")[0]
            stacks[stack] = (stacks.get(stack, (before.rms, 0.0))[0], after.rms)
        return [_ratio(last, first) for first, last in stacks.values()]


def _ratio(over: float, under: float) -> float:
    return over / under if under > 0 else math.nan


def _nan_last(value: float) -> float:
    """For a largest value: one that is not a number is larger than all, so that it shows."""
    return math.inf if math.isnan(value) else value
