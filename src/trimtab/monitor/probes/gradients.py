"""The gradient of the probe batch, layer by layer, and how far it turns from examination to examination.

Shape suffixes: P parameters · G parameters of one size · N values of one · K coordinates of a sketch · C 2 + bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import final

import torch
from torch import Tensor, nn

from trimtab.monitor.probes.groups import of_groups
from trimtab.monitor.probes.histogram import binned, read_histograms
from trimtab.monitor.probes.sketch import Sketch
from trimtab.signals import Examined, Readings, of_layers


@final
class GradientExamination:
    """Norm, mean, variance, zeros and non-finite values of each parameter's gradient and of the whole.

    The cosine with the gradient of the examination before is that of two sketches (sketch.py): exact for up to 1,024
    values, else within some hundredths; 0 where one of the two is 0. A value that is not finite makes all but the two
    fractions not finite.
    """

    name = "gradients"

    def __init__(self, seed: int) -> None:
        self._sketch = Sketch(seed)
        self._earlier: dict[str, Tensor] = {}

    def attach(self, model: nn.Module) -> AbstractContextManager[None]:
        """Nothing."""
        return nullcontext()

    def read(self, examined: Examined) -> Readings:
        """Six values and a histogram a parameter, and six values of the whole."""
        names = list(examined.gradients)
        variance_P, mean_P, norm_P, nonzero_P, finite_P, rows_PC, now_PK = of_groups(examined.gradients, self._of_group)
        sizes = [gradient.numel() for gradient in examined.gradients.values()]
        sizes_P = torch.tensor(sizes, device=norm_P.device)
        zeros_P, bad_P = sizes_P - nonzero_P, sizes_P - finite_P
        count, share_P = sizes_P.sum(), sizes_P / sizes_P.sum()
        mean = (mean_P * share_P).sum()
        readings = Readings(
            metrics={
                "probe/grad_norm": torch.linalg.vector_norm(norm_P),
                "probe/grad_mean": mean,
                "probe/grad_variance": ((variance_P + (mean_P - mean).square()) * share_P).sum(),
                "probe/grad_zero_fraction": zeros_P.sum() / count,
                "probe/grad_non_finite_fraction": bad_P.sum() / count,
            },
            layers={
                **of_layers("probe_grad_norm", names, norm_P),
                **of_layers("grad_mean", names, mean_P),
                **of_layers("grad_variance", names, variance_P),
                **of_layers("grad_zero_fraction", names, zeros_P / sizes_P),
                **of_layers("grad_non_finite_fraction", names, bad_P / sizes_P),
            },
        )
        readings.histograms = read_histograms([f"layer/{name}/gradient" for name in names], rows_PC)
        if common := [index for index, name in enumerate(names) if name in self._earlier]:
            whole = len(common) == len(names)
            new_PK = now_PK if whole else now_PK[torch.tensor(common, device=now_PK.device)]
            old_PK = torch.stack([self._earlier[names[index]] for index in common]).to(now_PK.device)
            products_P, new_P, old_P = (
                (a * b).sum(1) for a, b in ((new_PK, old_PK), (new_PK, new_PK), (old_PK, old_PK))
            )
            readings.metrics["probe/grad_cosine"] = _cosine(products_P.sum(), new_P.sum(), old_P.sum())
            common_names = [names[index] for index in common]
            readings.layers |= of_layers("grad_cosine", common_names, _cosine(products_P, new_P, old_P))
        self._earlier = dict(zip(names, now_PK.cpu().unbind(), strict=True))
        return readings

    def _of_group(self, names: Sequence[str], values_GN: Tensor) -> tuple[Tensor, ...]:
        variance_G, mean_G = torch.var_mean(values_GN, 1, correction=0)
        norm_G = torch.linalg.vector_norm(values_GN, dim=1)
        nonzero_G, finite_G = torch.count_nonzero(values_GN, 1), torch.isfinite(values_GN).sum(1)
        sketches_GK = self._sketch.of_group(names, values_GN)
        return variance_G, mean_G, norm_G, nonzero_G, finite_G, binned(values_GN), sketches_GK

    def begin(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Nothing: the first gradient has none before it."""

    def before(self, weights: Mapping[str, Tensor]) -> None:
        """Nothing."""

    def state_by_name(self) -> dict[str, Tensor]:
        """The sketch of each parameter's newest gradient."""
        return dict(self._earlier)

    def load_state_by_name(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` says."""
        self._earlier = {name: sketch.clone() for name, sketch in state.items()}


def _cosine(products: Tensor, first: Tensor, second: Tensor) -> Tensor:
    size = (first * second).sqrt()
    return torch.where(size == 0, 0.0, products / size)
