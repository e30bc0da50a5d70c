"""The gradient of the probe batch, layer by layer, and how far it turns from examination to examination.

Shape suffixes: P parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import final

import torch
from torch import Tensor, nn

from trimtab.monitor.probes.histogram import histograms
from trimtab.monitor.probes.sketch import Sketch, product
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
        names, gradients = list(examined.gradients), list(examined.gradients.values())
        sizes_P = torch.tensor([gradient.numel() for gradient in gradients], device=gradients[0].device)
        pairs = [torch.var_mean(gradient, correction=0) for gradient in gradients]
        variance_P, mean_P = (torch.stack(values) for values in zip(*pairs, strict=True))
        norm_P = torch.stack(torch._foreach_norm(gradients))
        zeros_P = sizes_P - torch.stack([torch.count_nonzero(gradient) for gradient in gradients])
        bad_P = sizes_P - torch.stack([torch.isfinite(gradient).sum() for gradient in gradients])
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
        now = self._sketch.of(examined.gradients)
        if common := [name for name in now if name in self._earlier]:
            new, old = {name: now[name] for name in common}, {name: self._earlier[name] for name in common}
            products_P, new_P, old_P = product(new, old), product(new, new), product(old, old).to(norm_P.device)
            readings.metrics["probe/grad_cosine"] = _cosine(products_P.sum(), new_P.sum(), old_P.sum())
            readings.layers |= of_layers("grad_cosine", common, _cosine(products_P, new_P, old_P))
        self._earlier = {name: sketch.cpu() for name, sketch in now.items()}
        readings.histograms = {f"layer/{name}/gradient": one for name, one in histograms(examined.gradients).items()}
        return readings

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
