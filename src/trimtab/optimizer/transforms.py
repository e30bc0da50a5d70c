"""What is done to gradients before the update, on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from trimtab.signals import Gradients


@final
class ClipByNorm:
    """g * c / ||g|| when ||g|| > c, over the whole gradient; c is the setting `clip_threshold`.

    Source: Pascanu et al. 2013, arXiv 1211.5063, algorithm 1. No epsilon: a zero gradient is below any c.
    """

    name = "clip_by_norm"

    def apply(self, gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        """Set the gradients' scale."""
        gradients.scale = gradients.scale * (settings["clip_threshold"] / gradients.total_norm).clamp(max=1.0)

    def state_by_name(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load_state_by_name(self, state: Mapping[str, Tensor]) -> None:
        """Nothing."""


@final
class SkipNonFinite:
    """Skip the update when the loss or any gradient is not finite. Source: own."""

    name = "skip_non_finite"

    def apply(self, gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        """Set the gradients' skip flag."""
        bad = ~(torch.isfinite(gradients.total_norm) & torch.isfinite(settings["loss"]))
        gradients.skip = torch.maximum(gradients.skip, bad.to(gradients.skip.dtype))

    def state_by_name(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load_state_by_name(self, state: Mapping[str, Tensor]) -> None:
        """Nothing."""
