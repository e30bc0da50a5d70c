"""The gradient of the probe batch, layer by layer, and how far it turns from examination to examination.

Shape suffixes: P parameters · K coordinates of a sketch.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import final

import torch
from torch import Tensor, nn

from trimtab.monitor.probes.sketch import Sketch, cosines
from trimtab.signals import Examined, Readings, of_layers


@final
class GradientExamination:
    """Norm, mean, variance, zeros and non-finite values of each parameter's gradient and of the whole.

    The cosine with the gradient of the examination before is that of two sketches (sketch.py): exact for up to 1,024
    values, else within some hundredths. A value that is not finite makes all but the two fractions not finite.
    """

    name = "gradients"

    def __init__(self, seed: int) -> None:
        self._sketch = Sketch(seed)
        self._earlier_PK: Tensor | None = None

    def attach(self, model: nn.Module) -> AbstractContextManager[None]:
        """Nothing."""
        return nullcontext()

    def read(self, examined: Examined) -> Readings:
        """Five values a parameter, and six of the whole."""
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
        now_PK, earlier_PK = self._sketch.of(examined.gradients), self._earlier_PK
        if earlier_PK is not None and earlier_PK.shape == now_PK.shape:
            cosine_P, cosine = cosines(earlier_PK.to(now_PK.device), now_PK)
            readings.metrics["probe/grad_cosine"] = cosine
            readings.layers |= of_layers("grad_cosine", names, cosine_P)
        self._earlier_PK = now_PK
        return readings

    def begin(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Nothing: the first gradient has none before it."""

    def before(self, weights: Mapping[str, Tensor]) -> None:
        """Nothing."""

    def state_by_name(self) -> dict[str, Tensor]:
        """The newest gradient's sketch."""
        return {} if self._earlier_PK is None else {"gradient": self._earlier_PK}

    def load_state_by_name(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` says."""
        self._earlier_PK = state["gradient"].clone() if "gradient" in state else None
