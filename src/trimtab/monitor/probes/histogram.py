"""Histograms of many tensors with one copy to the host for their ends, and one for their counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from trimtab.events import Histogram

BINS: Final = 32


def histograms(tensors: Mapping[str, Tensor], bins: int = BINS) -> dict[str, Histogram]:
    """Of each tensor over its own range, in `bins` bins of one width; none of one that holds a value not finite.

    Where all values are equal the range is widened around them. Waits for the device.
    """
    ends = [torch.stack(torch.aminmax(tensor.detach().float())) for tensor in tensors.values()]
    if not ends:
        return {}
    ranges: dict[str, tuple[float, float]] = {}
    for name, (low, high) in zip(tensors, torch.stack(ends).tolist(), strict=True):
        if math.isfinite(low) and math.isfinite(high):
            margin = 0.0 if high > low else max(abs(low) * 1e-3, 1e-12)
            ranges[name] = (low - margin, high + margin)
    counts = [_counts(tensors[name].detach().float(), bins, low, high) for name, (low, high) in ranges.items()]
    if not counts:
        return {}
    rows = torch.stack(counts).tolist()
    return {name: Histogram(*ranges[name], tuple(row)) for name, row in zip(ranges, rows, strict=True)}


def _counts(values: Tensor, bins: int, low: float, high: float) -> Tensor:
    """As torch.histc, which refuses CUDA where algorithms must be deterministic."""
    places = ((values.flatten() - low) * (bins / (high - low))).long().clamp_(0, bins - 1)
    return torch.bincount(places, minlength=bins).double()
