"""The weights: how they are spread, how far a step moves them, and how far they are from where they began.

Shape suffixes: P parameters · K coordinates of a sketch.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final, final

import torch
from torch import Tensor, nn

from trimtab.monitor.probes.histogram import histograms
from trimtab.monitor.probes.sketch import Sketch, product
from trimtab.signals import Examined, Readings, of_layers

AXES: Final = 3


@final
class ParameterExamination:
    """Mean, standard deviation and histogram of each parameter, the size of its newest update as a part of its own,
    its distance from the start, and the way of the whole through a space of three dimensions.

    Update and distance are lengths of differences of sketches (sketch.py): exact for up to 1,024 values, else within
    some hundredths, at 1/32 of the memory of the weights. The three coordinates are a fixed random projection of the
    difference from the start: each weight adds to one of them, with a random sign, so that lengths in this space are
    on average a third of the squared ones in that of the weights. The start is that of the run; of parameters that
    were frozen then, or not measured, where they are first seen.
    """

    name = "parameters"

    def __init__(self, seed: int) -> None:
        self._sketch = Sketch(seed)
        self._start: dict[str, Tensor] = {}
        self._before: dict[str, Tensor] = {}

    def attach(self, model: nn.Module) -> AbstractContextManager[None]:
        """Nothing."""
        return nullcontext()

    def begin(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Sketch the weights that no checkpoint knows the start of."""
        self._note_start(weights)

    def _note_start(self, weights: Mapping[str, Tensor]) -> None:
        new = {name: weight for name, weight in weights.items() if name not in self._start}
        self._start = self._start | {name: sketch.cpu() for name, sketch in self._sketch.of(new).items()}

    def before(self, weights: Mapping[str, Tensor]) -> None:
        """Sketch the weights."""
        self._note_start(weights)
        self._before = self._sketch.of(weights)

    def read(self, examined: Examined) -> Readings:
        """Four values and a histogram a parameter, and six of the whole."""
        names, weights = list(examined.weights), list(examined.weights.values())
        pairs = [torch.var_mean(weight, correction=0) for weight in weights]
        variance_P, mean_P = (torch.stack(values) for values in zip(*pairs, strict=True))
        norm_P = torch.stack(torch._foreach_norm(weights)).double()
        norm = torch.linalg.vector_norm(norm_P)
        readings = Readings(
            layers={
                **of_layers("weight_mean", names, mean_P),
                **of_layers("weight_std", names, variance_P.sqrt()),
            },
            histograms={f"layer/{name}/weight": one for name, one in histograms(examined.weights).items()},
        )
        now, before, self._before = self._sketch.of(examined.weights), self._before, {}
        if before.keys() == now.keys():
            update_P, size_P = _distances(now, before), _distances(before)
            readings.layers |= of_layers("update_ratio", names, _part(update_P, size_P))
            whole, size = torch.linalg.vector_norm(update_P), torch.linalg.vector_norm(size_P)
            readings.metrics["probe/update_ratio"] = _part(whole, size)
        start = {name: self._start[name].to(norm.device) for name in names if name in self._start}
        moved = {name: now[name] - sketch for name, sketch in start.items()}
        if moved:
            distance_P = _distances(moved)
            readings.layers |= of_layers("distance_from_start", list(moved), distance_P)
            readings.metrics["probe/distance_from_start"] = torch.linalg.vector_norm(distance_P)
            whole_K = torch.stack(list(moved.values())).sum(0)
            for axis in range(AXES):
                readings.metrics[f"probe/trajectory/{axis}"] = whole_K[axis::AXES].sum()
        readings.metrics["probe/weight_norm"] = norm
        return readings

    def state_by_name(self) -> dict[str, Tensor]:
        """The sketch of each parameter at the start."""
        return dict(self._start)

    def load_state_by_name(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` says."""
        self._start = {name: sketch.clone() for name, sketch in state.items()}
        self._before = {}


def _distances(first: Mapping[str, Tensor], second: Mapping[str, Tensor] | None = None) -> Tensor:
    """Estimates [P] of the norm of each difference."""
    difference = first if second is None else {name: first[name] - second[name] for name in first}
    return product(difference, difference).sqrt()


def _part(part: Tensor, whole: Tensor) -> Tensor:
    """`part` / `whole`; 0 where nothing moved, so that a parameter of zeros that stays is no trouble."""
    return torch.where(part == 0, 0.0, part / whole)
