"""Histograms of many tensors, which come to the host together.

Shape suffixes: G tensors · N values of one · C 2 + bins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from trimtab.events import Histogram
from trimtab.monitor.probes.groups import of_groups

BINS: Final = 32


def histograms(tensors: Mapping[str, Tensor], bins: int = BINS) -> dict[str, Histogram]:
    """Of each tensor over its own range, in `bins` bins of one width; none of one that holds a value not finite.

    Where all values are equal the range is widened around them. Waits for the device.
    """
    if not tensors:
        return {}
    (rows_PC,) = of_groups(tensors, lambda names, values_GN: (binned(values_GN.float(), bins),))
    return read_histograms(list(tensors), rows_PC)


def binned(values_GN: Tensor, bins: int = BINS) -> Tensor:
    """Of each row of fp32 values: where its range begins and ends, and how many fall into each bin; fp64 [G, C].

    Counts say nothing where the range is not finite. As torch.histc, which refuses CUDA where algorithms must be
    deterministic.
    """
    num = len(values_GN)
    low_G, high_G = (end.double() for end in torch.aminmax(values_GN, dim=1))
    margin_G = torch.where(high_G > low_G, 0.0, (low_G.abs() * 1e-3).clamp_min(1e-12))
    low_G, high_G = low_G - margin_G, high_G + margin_G
    scale_G = bins / (high_G - low_G)
    places_GN = (values_GN - low_G.float()[:, None]).mul_(scale_G.float()[:, None]).int().clamp_(0, bins - 1)
    if num > 1:
        places_GN.add_(torch.arange(0, num * bins, bins, dtype=torch.int32, device=places_GN.device)[:, None])
    counts_GC = torch.bincount(places_GN.view(-1), minlength=num * bins).view(num, bins)
    return torch.cat((torch.stack((low_G, high_G), 1), counts_GC.double()), 1)


def read_histograms(names: Sequence[str], rows_PC: Tensor) -> dict[str, Histogram]:
    """From what `binned` says of each, in one copy; none where the range is not finite. Waits for the device."""
    return {
        name: Histogram(low, high, tuple(counts))
        for name, (low, high, *counts) in zip(names, rows_PC.tolist(), strict=True)
        if math.isfinite(low) and math.isfinite(high)
    }
