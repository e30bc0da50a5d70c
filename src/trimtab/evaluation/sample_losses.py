"""The loss of each part of a set, kept so that two evaluations can be compared sample by sample.

Shape suffixes: B sequences · M groups of samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.signals import IGNORED, Batch, LossTerms

GROUPS: Final = 2_000
"""At most so many are kept: of a larger set neighbours are put together, which are alike, so that the interval that
comes of it is no narrower than it should be."""

Floats = NDArray[np.float64]


@final
class SampleLosses:
    """Sums the plain loss and the counted targets of each sample, on the device, for `evaluate(look=…)`."""

    def __init__(self, num_samples: int, device: torch.device) -> None:
        self._num_samples, self._groups = num_samples, min(num_samples, GROUPS)
        # One more for rows that are padding.
        self._sums_2M = torch.zeros(2, self._groups + 1, dtype=torch.float64, device=device)

    def __call__(self, batch: Batch, output: Any, terms: LossTerms) -> None:
        """Add a batch; does not wait for the device."""
        losses_B = terms.losses.double().flatten(1).sum(1) if terms.losses.ndim > 1 else terms.losses.double()
        counted = (batch.targets != IGNORED).double()
        counts_B = counted.flatten(1).sum(1) if counted.ndim > 1 else counted
        place_B = torch.where(
            batch.sample_ids_B >= 0, batch.sample_ids_B * self._groups // self._num_samples, self._groups
        )
        self._sums_2M.index_add_(1, place_B, torch.stack((losses_B, counts_B)))

    def take(self) -> Tensor:
        """fp64 [2, M]: losses, and counted targets, of each group that was seen."""
        sums_2M = self._sums_2M[:, :-1].cpu()
        return sums_2M[:, sums_2M[1] > 0]


@dataclass(frozen=True, slots=True)
class Difference:
    """A loss less that of a baseline, per counted target of the same samples, with its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def is_worse(self) -> bool:
        """Whether chance alone would rarely look so: the whole interval lies above 0."""
        return self.low > 0.0


def paired_bootstrap(
    losses_M: Floats, baseline_M: Floats, counts_M: Floats, *, resamples: int = 2_000, seed: int = 0
) -> Difference:
    """How much larger `losses_M` are than `baseline_M`, both sums over the same `counts_M` targets of M samples.

    The samples, not their losses alone, are drawn anew with replacement, each with both its losses; what differs
    between samples falls out. The interval is that of percentiles. The same seed gives the same interval.
    Source: Efron and Tibshirani 1993, chapters 8 and 13; paired: Koehn 2004, EMNLP.

    Raises:
        ValueError: the arrays differ in shape, or nothing is counted.
    """
    if not losses_M.shape == baseline_M.shape == counts_M.shape or not counts_M.sum() > 0:
        raise ValueError(f"shapes must agree. Received: {losses_M.shape}, {baseline_M.shape}, {counts_M.shape}")
    gaps_M, groups = losses_M - baseline_M, len(counts_M)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    for first in range(0, resamples, 200):  # a part at a time: so many rows of M numbers are in memory
        last = min(resamples, first + 200)
        drawn = generator.multinomial(groups, np.full(groups, 1.0 / groups), size=last - first).astype(np.float64)
        means[first:last] = (drawn @ gaps_M) / np.maximum(drawn @ counts_M, 1e-300)
    low, high = np.percentile(means, [2.5, 97.5])
    return Difference(float(gaps_M.sum() / counts_M.sum()), float(low), float(high))
