"""The weights: how they are spread, how far a step moves them, and how far they are from where they began.

Shape suffixes: P parameters · G parameters of one size · N values of one · K coordinates of a sketch · C 2 + bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final, final

import torch
from torch import Tensor, nn

from trimtab.monitor.probes.groups import of_groups
from trimtab.monitor.probes.histogram import binned, read_histograms
from trimtab.monitor.probes.sketch import Sketch
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
        self._before: tuple[tuple[str, ...], Tensor] | None = None

    def attach(self, model: nn.Module) -> AbstractContextManager[None]:
        """Nothing."""
        return nullcontext()

    def begin(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Sketch the weights that no checkpoint knows the start of."""
        self._note_start(weights)

    def _note_start(self, weights: Mapping[str, Tensor]) -> None:
        new = {name: weight for name, weight in weights.items() if name not in self._start}
        if new:
            (sketches_PK,) = of_groups(new, self._sketched)
            self._start = self._start | dict(zip(new, sketches_PK.cpu().unbind(), strict=True))

    def before(self, weights: Mapping[str, Tensor]) -> None:
        """Sketch the weights."""
        self._note_start(weights)
        self._before = (tuple(weights), of_groups(weights, self._sketched)[0])

    def _sketched(self, names: Sequence[str], values_GN: Tensor) -> tuple[Tensor]:
        return (self._sketch.of_group(names, values_GN),)

    def _of_group(self, names: Sequence[str], values_GN: Tensor) -> tuple[Tensor, ...]:
        variance_G, mean_G = torch.var_mean(values_GN, 1, correction=0)
        norm_G = torch.linalg.vector_norm(values_GN, dim=1)
        return variance_G, mean_G, norm_G, binned(values_GN), *self._sketched(names, values_GN)

    def read(self, examined: Examined) -> Readings:
        """Four values and a histogram a parameter, and six of the whole."""
        names = list(examined.weights)
        variance_P, mean_P, norm_P, rows_PC, now_PK = of_groups(examined.weights, self._of_group)
        readings = Readings(
            layers={
                **of_layers("weight_mean", names, mean_P),
                **of_layers("weight_std", names, variance_P.sqrt()),
            },
            histograms=read_histograms([f"layer/{name}/weight" for name in names], rows_PC),
        )
        before, self._before = self._before, None
        if before is not None and set(before[0]) == set(names):
            before_PK = before[1] if before[0] == tuple(names) else before[1][_places(before[0], names, now_PK.device)]
            update_P, size_P = _lengths(now_PK - before_PK), _lengths(before_PK)
            readings.layers |= of_layers("update_ratio", names, _part(update_P, size_P))
            whole, size = torch.linalg.vector_norm(update_P), torch.linalg.vector_norm(size_P)
            readings.metrics["probe/update_ratio"] = _part(whole, size)
        if known := [name for name in names if name in self._start]:
            start_PK = torch.stack([self._start[name] for name in known]).to(now_PK.device)
            moved_PK = (now_PK if known == names else now_PK[_places(names, known, now_PK.device)]) - start_PK
            distance_P = _lengths(moved_PK)
            readings.layers |= of_layers("distance_from_start", known, distance_P)
            readings.metrics["probe/distance_from_start"] = torch.linalg.vector_norm(distance_P)
            whole_K = moved_PK.sum(0)
            for axis in range(AXES):
                readings.metrics[f"probe/trajectory/{axis}"] = whole_K[axis::AXES].sum()
        readings.metrics["probe/weight_norm"] = torch.linalg.vector_norm(norm_P.double())
        return readings

    def state_by_name(self) -> dict[str, Tensor]:
        """The sketch of each parameter at the start."""
        return dict(self._start)

    def load_state_by_name(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` says."""
        self._start = {name: sketch.clone() for name, sketch in state.items()}
        self._before = None


def _lengths(sketches_PK: Tensor) -> Tensor:
    """Estimates [P] of the norm of what each is a sketch of."""
    return sketches_PK.square().sum(1).sqrt()


def _places(names: Sequence[str], asked: Sequence[str], device: torch.device) -> Tensor:
    """Where among `names` each of `asked` is."""
    place = {name: index for index, name in enumerate(names)}
    return torch.tensor([place[name] for name in asked], device=device)


def _part(part: Tensor, whole: Tensor) -> Tensor:
    """`part` / `whole`; 0 where nothing moved, so that a parameter of zeros that stays is no trouble."""
    return torch.where(part == 0, 0.0, part / whole)
