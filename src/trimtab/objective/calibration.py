"""How sure a model is, beside how often it is right: sums for the expected calibration error, and a reliability curve.

Shape suffixes: N targets · V classes · K bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BINS: Final = 15
"""Of equal width, from 0 to 1; as Guo et al. take."""


def reliability_sums(confidence: Tensor, right: Tensor, counted: Tensor, bins: int = BINS) -> Tensor:
    """fp64 [3 K]: for each bin of confidence how many counted targets, their summed confidence, how many are right.

    `confidence` is a probability in the shape of the targets, `right` and `counted` are boolean. A bin holds
    (low, high]; sums of batches add up. Does not wait for the device.
    """
    confidence_N = confidence.flatten().double()
    # Of a model that diverged a confidence is no number, and no place either.
    place_N = ((confidence_N.nan_to_num() * bins).ceil() - 1).clamp(0, bins - 1).long()
    values_3N = torch.stack((torch.ones_like(confidence_N), confidence_N, right.flatten().double()))
    values_3N = torch.where(counted.flatten(), values_3N, 0.0)
    return (
        torch.zeros(3, bins, dtype=torch.float64, device=confidence.device).index_add_(1, place_N, values_3N).view(-1)
    )


def calibration_error(sums: Sequence[float] | NDArray[np.float64]) -> float:
    """The expected calibration error: mean over targets of |share that is right - mean confidence| of their bin.

    0 of no targets. Source: Naeini et al. 2015, AAAI; Guo et al. 2017, arXiv 1706.04599, eq. 3.
    """
    counts_K, confidence_K, right_K = np.asarray(sums, dtype=np.float64).reshape(3, -1)
    total = float(counts_K.sum())
    return float(np.abs(right_K - confidence_K).sum()) / total if total else 0.0


def reliability_curve(sums: Sequence[float] | NDArray[np.float64]) -> list[dict[str, float]]:
    """For each bin that has targets: its bounds, how many, their mean confidence, and the share that is right."""
    counts_K, confidence_K, right_K = np.asarray(sums, dtype=np.float64).reshape(3, -1)
    bins = len(counts_K)
    return [
        {
            "low": place / bins,
            "high": (place + 1) / bins,
            "count": int(counts_K[place]),
            "confidence": float(confidence_K[place] / counts_K[place]),
            "accuracy": float(right_K[place] / counts_K[place]),
        }
        for place in range(bins)
        if counts_K[place]
    ]
