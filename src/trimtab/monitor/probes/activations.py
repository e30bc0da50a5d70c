"""What passes through the layers: how large, how heavy-tailed, and how many units have nothing to say.

Shape suffixes: B sequences · T positions · D hidden size · F feed-forward size · N counted positions · L layers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, final

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from trimtab.model import Transformer
from trimtab.model.activation_functions import Function, activations_read
from trimtab.model.structure import streams_read
from trimtab.monitor.probes.histogram import binned, histograms, read_histograms
from trimtab.monitor.probes.positions import Positions
from trimtab.signals import Examined, Readings, of_layers

FLAT: Final = 0.01
"""A slope below this passes no gradient to speak of; an output within it of 0 says nothing. The functions' own scale,
at which they turn, is 1."""

FEWEST: Final = 16
"""Positions: half of all units give 0 at one by chance."""
_AT_ONCE: Final = 1 << 25
"""Values that are widened at once: 256 MiB in fp64."""


def moments(values: Tensor) -> Tensor:
    """Of the values of a tensor of any shape: mean, second and fourth central moment, fp64 [3]."""
    portions = torch.split(values.reshape(-1), _AT_ONCE)
    num = values.numel()
    mean = _sum([one.sum(dtype=torch.float64) for one in portions]) / num
    second: list[Tensor] = []
    fourth: list[Tensor] = []
    for one in portions:
        squares = one.to(torch.float64, copy=True).sub_(mean).square_()
        second.append(squares.sum())
        fourth.append(squares.square_().sum())
    return torch.stack((mean, _sum(second) / num, _sum(fourth) / num))


def _sum(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum()


def described(moments_L3: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, root of the mean square, and kurtosis (fourth central moment over the squared variance: 3 of a normal
    distribution, more with outliers; not a number where all values are alike), [L] each."""
    mean_L, variance_L, fourth_L = moments_L3.unbind(1)
    return mean_L, (variance_L + mean_L.square()).sqrt(), fourth_L / variance_L.square()


@final
class Units:
    """Which of a layer's units say anything, and where its activation functions are flat, from several portions.

    A unit is dead that at no counted position gives more than `FLAT` from 0 nor passes a gradient; where the function
    is exactly 0 below 0, as of ReLU, one that never gives anything but 0. A value is saturated where the slope of the
    function is below `FLAT`: nothing that is before it would learn from it. Functions of other widths, and those
    of what other matrices gave, have units of their own.
    Source: Lu et al. 2019, arXiv 1903.06733 (dead ReLUs); the rest is own.
    """

    def __init__(self) -> None:
        self._living: dict[tuple[str, int], Tensor] = {}
        """By source and width: where a unit has said something, [F]."""
        self._seen: Counter[tuple[str, int]] = Counter()
        """At how many positions that was."""
        self._num_flat: Tensor | None = None
        self._num_values = 0
        self._is_known = True

    def add(self, argument_NF: Tensor, function: Function, source: str = "") -> None:
        """A portion: what goes into `function`, at counted positions alone. Does not wait for the device."""
        num, width = argument_NF.shape
        if not num or not width:
            return
        self._seen[source, width] += num
        with torch.no_grad():
            minus_one = torch.full_like(argument_NF[:1], -1.0, dtype=torch.float32)
            near = torch.where(function(minus_one).any(), FLAT, 0.0)
        for part_NF in torch.split(argument_NF, max(1, _AT_ONCE // width)):
            # Hooks of its own: a checkpoint that is around the layer must not count what is kept here.
            with torch.enable_grad(), saved_tensors_hooks(_itself, _itself):
                given_NF = part_NF.detach().float().requires_grad_()
                output_NF = function(given_NF)
                (slope_NF,) = torch.autograd.grad(output_NF.sum(), given_NF)
            with torch.no_grad():
                largest_F = torch.linalg.vector_norm(output_NF.detach(), math.inf, 0)
                steepest_F = torch.linalg.vector_norm(slope_NF, math.inf, 0)
                living_F = (largest_F > near) | ((steepest_F >= FLAT) & (near > 0))
                known_F = self._living.get((source, width))
                self._living[source, width] = living_F if known_F is None else known_F | living_F
                num_flat = (slope_NF.abs() < FLAT).sum()
                self._num_flat = num_flat if self._num_flat is None else self._num_flat + num_flat
                self._num_values += slope_NF.numel()

    def give_up(self) -> None:
        """A portion could not be read: nothing is known of the whole."""
        self._is_known = False

    @property
    def fractions(self) -> tuple[Tensor, Tensor] | None:
        """Of the units those that are dead, and of the values those that are saturated, where they lie; None before
        there is a portion, and where one could not be read."""
        if self._num_flat is None or not self._is_known:
            return None
        told: dict[tuple[str, int], Tensor] = {}
        for (source, width), living_F in self._living.items():  # experts of few tokens each speak for one another
            key = (source if self._seen[source, width] >= FEWEST else "", width)
            told[key] = living_F | told[key] if key in told else living_F
        return 1 - torch.cat(list(told.values())).double().mean(), self._num_flat.double() / self._num_values

    @property
    def dead_fraction(self) -> float:
        """Of the units; not a number before there is a portion. Waits for the device."""
        return float("nan") if self.fractions is None else float(self.fractions[0])

    @property
    def saturated_fraction(self) -> float:
        """Of the values; not a number before there is a portion. Waits for the device."""
        return float("nan") if self.fractions is None else float(self.fractions[1])


def _itself(kept: Tensor) -> Tensor:
    return kept


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
        self._clear()

    def _clear(self) -> None:
        self._streams: dict[str, tuple[Tensor, Tensor]] = {}
        self._outputs: dict[str, Tensor] = {}
        self._rows: dict[str, Tensor] = {}
        self._units: dict[str, Units] = {}
        self._newest: tuple[Tensor, int, Tensor | None, Tensor] | None = None

    @contextmanager
    def attach(self, model: nn.Module) -> Iterator[None]:
        """Hooks on the layers and their activation functions."""
        self._clear()
        # Counting waits for the device. It can be done after the pass where nobody writes into what a layer gave.
        waits = isinstance(model, Transformer)
        with Positions.of_pass(model) as positions:

            def stream(name: str, before: Tensor, after: Tensor) -> None:
                mask_BT = positions.counted(name)
                into_3 = self._known(before, mask_BT)
                if into_3 is None:
                    into_3 = moments(counted(before, mask_BT))
                out = counted(after, mask_BT)
                out_3 = moments(out)
                self._newest = (after, after._version, mask_BT, out_3)
                self._streams[name] = (into_3, out_3)
                if waits:
                    self._outputs[name] = out
                else:
                    self._rows[name] = binned(out.reshape(1, -1).float())

            def unit(name: str, argument: Tensor, function: Function, source: str) -> None:
                units = self._units.setdefault(name, Units())
                try:
                    units.add(counted(argument, positions.counted(name)), function, source)
                except torch.OutOfMemoryError:
                    raise
                except Exception:  # inside of the model's own pass, which it must not end
                    units.give_up()

            with streams_read(model, stream), activations_read(model, unit):
                yield
        self._newest = None

    def _known(self, stream: Tensor, mask_BT: Tensor | None) -> Tensor | None:
        """The moments of a layer's input that is what the layer before it gave, as it gave it."""
        if self._newest is None:
            return None
        kept, version, mask, moments_3 = self._newest
        same = kept.data_ptr() == stream.data_ptr() and (kept.shape, kept.stride()) == (stream.shape, stream.stride())
        same = same and kept.dtype == stream.dtype and kept._version == version and mask is mask_BT
        return moments_3 if same else None

    def read(self, examined: Examined) -> Readings:
        """Up to six values and a histogram a layer, and three of the whole."""
        readings = Readings()
        if self._streams:
            names = list(self._streams)
            into_L3, out_L3 = (torch.stack(each) for each in zip(*self._streams.values(), strict=True))
            _, before_L, _ = described(into_L3)
            mean_L, after_L, kurtosis_L = described(out_L3)
            readings.layers |= {
                **of_layers("activation_mean", names, mean_L),
                **of_layers("probe_activation_rms", names, after_L),
                **of_layers("activation_kurtosis", names, kurtosis_L),
                **of_layers("residual_growth", names, _ratio(after_L, before_L)),
            }
            stacks = _stacks(names)
            first, last = [one[0] for one in stacks], [one[-1] for one in stacks]
            growths = [_ratio(after_L[end], before_L[begin]) for begin, end in zip(first, last, strict=True)]
            readings.metrics["probe/activation_kurtosis"] = kurtosis_L.amax()
            readings.metrics["probe/residual_growth"] = torch.stack(growths).amax()
            found = histograms(self._outputs)
            if self._rows:
                found |= read_histograms(list(self._rows), torch.cat(list(self._rows.values())))
            readings.histograms = {f"layer/{name}/activation": found[name] for name in names if name in found}
        known = {name: both for name, units in self._units.items() if (both := units.fractions) is not None}
        if known:
            dead_L, saturated_L = (torch.stack(each) for each in zip(*known.values(), strict=True))
            readings.layers |= of_layers("dead_fraction", list(known), dead_L)
            readings.layers |= of_layers("saturated_fraction", list(known), saturated_L)
        for name in self._units.keys() - known.keys():
            readings.layers |= dict.fromkeys(
                (f"layer/{name}/dead_fraction", f"layer/{name}/saturated_fraction"), math.nan
            )
        if self._units:
            whole = len(known) == len(self._units)
            readings.metrics["probe/dead_fraction"] = dead_L.mean() if whole else math.nan
        self._clear()
        return readings


def _stacks(names: list[str]) -> list[list[int]]:
    """Places in `names` of each stack of layers, whose names differ in a number alone."""
    found: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        found.setdefault(name.rpartition(".")[0], []).append(index)
    return list(found.values())


def _ratio(over: Tensor, under: Tensor) -> Tensor:
    return torch.where(under > 0, over / under, math.nan)
