"""The step towards worse weights of sharpness-aware minimization."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_LEAST = 1e-12
_KEPT = 0.01
"""Added to the size of a weight, so that one of 0 can be moved, too (eta)."""


def ascent(weights: Sequence[Tensor], gradients: Sequence[Tensor], radius: float, *, adaptive: bool) -> list[Tensor]:
    """What is added to each weight: `radius` · g / ‖g‖, the norm over all; of a gradient that is not finite, 0.

    `adaptive`: `radius` · t² g / ‖t g‖ with t = |w| + 0.01, so that scaling weights up and down in two layers changes
    nothing. A factor on all gradients, such as a loss scale, changes nothing.
    Source: Foret et al. 2021, arXiv 2010.01412, equation 2; Kwon et al. 2021, arXiv 2102.11600, equation 10 and
    section 4, with the operator that does not depend on the layer.
    """
    scaled = list(gradients)
    if adaptive:
        sizes = [weight.abs() + _KEPT for weight in weights]
        scaled = [gradient * size for gradient, size in zip(gradients, sizes, strict=True)]
    total = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(scaled, 2.0, torch.float32)))
    factor = radius / total.clamp_min(_LEAST)
    if adaptive:
        scaled = [one * size for one, size in zip(scaled, sizes, strict=True)]
    # Times 0 would leave NaN.
    return [torch.where(torch.isfinite(total), factor * one, 0.0) for one in scaled]
