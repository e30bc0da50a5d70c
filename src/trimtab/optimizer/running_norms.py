"""Thresholds that follow the gradient's norm: quantiles and deviations of the steps before, kept on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from trimtab.signals import Gradients


@final
class _RunningNorm:
    """Mean and variance of the norm: of all steps at first, and then with a weight of 1 / memory for the newest."""

    def __init__(self, memory: int, device: torch.device | None) -> None:
        self.memory = memory
        self.slots = {
            slot: torch.zeros((), dtype=torch.float32, device=device) for slot in ("count", "mean", "variance")
        }

    def threshold_for(self, norm: Tensor, deviations: Tensor | float) -> Tensor:
        """So many deviations above the mean of the norms before; infinite before `memory` steps were seen.

        `norm` is remembered, as the threshold where it is above: so that follows a lasting change, and not a spike.
        """
        level = self.slots["mean"] + deviations * self.slots["variance"].sqrt()
        threshold = torch.where(self.slots["count"] >= self.memory, level, torch.inf)
        self._see(torch.minimum(norm, torch.where(torch.isfinite(norm), threshold, torch.inf)))
        return threshold

    def state_by_name(self) -> dict[str, Tensor]:
        """Count, mean and variance."""
        return dict(self.slots)

    def load_state_by_name(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` says."""
        for slot, tensor in self.slots.items():
            tensor.copy_(state[slot])

    def _see(self, norm: Tensor) -> None:
        """Take in one more norm, unless it is not finite."""
        count, mean, variance = self.slots.values()
        finite = torch.isfinite(norm)
        difference = torch.where(finite, norm - mean, 0.0)
        new = torch.where(finite, 1.0 / (count + 1.0).clamp(max=float(self.memory)), 0.0)
        mean.add_(new * difference)
        variance.copy_((1.0 - new) * (variance + new * difference.square()))
        count.add_(finite.to(count.dtype)).clamp_(max=float(self.memory))


@final
class ClipByZScore:
    """g * h / ||g|| when ||g|| > h = mean + k * deviation of the norms before; the setting `clip_threshold` scales k.

    What is clipped is remembered as h, so that the threshold follows a lasting change and not a spike.
    Source: after Kumar et al. 2025, arXiv 2504.02507 (ZClip, which clips to less than h).
    """

    name = "clip_by_z_score"

    def __init__(self, deviations: float, memory: int, device: torch.device | None = None) -> None:
        self.deviations, self._norm = deviations, _RunningNorm(memory, device)

    def apply(self, gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        """Set the gradients' scale."""
        threshold = self._norm.threshold_for(gradients.total_norm, self.deviations * settings["clip_threshold"])
        gradients.scale = gradients.scale * (threshold / gradients.total_norm).clamp(max=1.0)

    def state_by_name(self) -> dict[str, Tensor]:
        """Count, mean and variance."""
        return self._norm.state_by_name()

    def load_state_by_name(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` says."""
        self._norm.load_state_by_name(state)


@final
class SkipOutliers:
    """Skip the update when ||g|| > h = mean + k * deviation of the norms before.

    What is skipped is remembered as h, so that a lasting change is skipped for a while only. Source: own.
    """

    name = "skip_outliers"

    def __init__(self, deviations: float, memory: int, device: torch.device | None = None) -> None:
        self.deviations, self._norm = deviations, _RunningNorm(memory, device)

    def apply(self, gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        """Set the gradients' skip flag."""
        threshold = self._norm.threshold_for(gradients.total_norm, self.deviations)
        outlying = torch.isfinite(gradients.total_norm) & (gradients.total_norm > threshold)
        gradients.skip = torch.maximum(gradients.skip, outlying.to(gradients.skip.dtype))

    def state_by_name(self) -> dict[str, Tensor]:
        """Count, mean and variance."""
        return self._norm.state_by_name()

    def load_state_by_name(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` says."""
        self._norm.load_state_by_name(state)


@final
class ClipByQuantile:
    """g * h / ||g|| when ||g|| > h, a quantile of the last norms; the setting `clip_threshold` is a factor on h.

    Between two norms the quantile is interpolated, as in numpy. The norms are remembered as they were.
    Source: Seetharaman et al. 2020, arXiv 2007.14469 (AutoClip), over a bounded memory.
    """

    name = "clip_by_quantile"

    def __init__(self, quantile: float, memory: int, device: torch.device | None = None) -> None:
        self.quantile, self.memory = quantile, memory
        self._norms = torch.full((memory,), torch.inf, dtype=torch.float32, device=device)
        self._count = torch.zeros((), dtype=torch.int64, device=device)

    def apply(self, gradients: Gradients, settings: Mapping[str, Tensor]) -> None:
        """Set the gradients' scale."""
        place = self.quantile * (self.memory - 1)
        low, part = int(place), place - int(place)
        ordered = self._norms.sort().values
        level = ordered[low].lerp(ordered[min(low + 1, self.memory - 1)], part)
        full = self._count >= self.memory
        threshold = torch.where(full, level * settings["clip_threshold"], torch.inf)
        gradients.scale = gradients.scale * (threshold / gradients.total_norm).clamp(max=1.0)
        finite = torch.isfinite(gradients.total_norm)
        here = (self._count % self.memory).unsqueeze(0)
        kept = torch.where(finite, gradients.total_norm, self._norms.gather(0, here).squeeze(0))
        self._norms.scatter_(0, here, kept.unsqueeze(0))
        self._count.add_(finite.to(self._count.dtype))

    def state_by_name(self) -> dict[str, Tensor]:
        """The last norms, and how many there were."""
        return {"norms": self._norms, "count": self._count}

    def load_state_by_name(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` says."""
        self._norms.copy_(state["norms"])
        self._count.copy_(state["count"])
