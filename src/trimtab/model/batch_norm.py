"""Batch normalization that padding is no part of.

Shape suffixes: N values, in whatever shape · C channels.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn


@final
class BatchNorm(nn.BatchNorm1d):
    """γ (x - mean) / sqrt(variance + ε) + β of each channel, the last dimension: [..., C] -> [..., C].

    In training mean and variance are those of the micro-batch, in eval mode the running ones. A micro-batch moves
    these once, by `momentum`, with the variance of a sample (n - 1); with `momentum` None they are the mean over all
    micro-batches. So under accumulation each micro-batch is normalized by itself, and counts once. `real` says which
    places are no padding; others are no part of any statistic. A single value has no variance: what comes out is β,
    and the running statistics stay, as they do where all is padding. Statistics are in fp32, or fp64 of fp64.
    Nothing waits for the device.

    Source: Ioffe and Szegedy 2015, arXiv 1502.03167, algorithms 1 and 2.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, num_channels: int, *, momentum: float | None = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__(num_channels, eps=epsilon, momentum=momentum)

    def forward(self, input: Tensor, real: Tensor | None = None) -> Tensor:
        """`input` [..., C] normalized; `real` is boolean, of its shape without C."""
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        if real is not None:  # what stands there may be infinite, and would make gradients NaN
            wide = torch.where(real[..., None], wide, 0.0)
        if self.training:
            mean_C, variance_C = self._statistics(wide.reshape(-1, wide.shape[-1]), real)
        else:
            mean_C, variance_C = self.running_mean, self.running_var
        normal = (wide - mean_C) * torch.rsqrt(variance_C + self.eps)
        return (normal * self.weight + self.bias).type_as(input)

    def _statistics(self, values_NC: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor]:
        real_N1 = torch.ones_like(values_NC[:, :1], dtype=torch.bool) if real is None else real.reshape(-1, 1)
        count = real_N1.sum()
        divisor = count.clamp_min(1)
        mean_C = values_NC.sum(0) / divisor
        squares_C = torch.where(real_N1, values_NC - mean_C, 0.0).square().sum(0)
        with torch.no_grad():
            counts = count > 1
            self.num_batches_tracked += counts
            factor = (1.0 / self.num_batches_tracked.clamp_min(1)) if self.momentum is None else self.momentum
            sample_C = squares_C / (count - 1).clamp_min(1)
            for running_C, newest_C in ((self.running_mean, mean_C), (self.running_var, sample_C)):
                moved_C = running_C + (newest_C - running_C) * factor
                running_C.copy_(torch.where(counts, moved_C, running_C))
        return mean_C, squares_C / divisor
