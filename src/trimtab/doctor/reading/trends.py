"""Whether a metric grows or shrinks over a run: by ranks and medians of parts, which single values cannot move."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from trimtab.doctor.reading.curves import Curve, Floats, Steps
from trimtab.doctor.reading.medians import quantiles


class Parts(NamedTuple):
    """A curve cut into equal parts in the order of the steps: the last step and a level of each."""

    steps: Steps
    levels: Floats

    @property
    def growth(self) -> float:
        """The mean of the last two levels over that of the first two."""
        begin, end = float(self.levels[:2].mean()), float(self.levels[-2:].mean())
        return end / begin if begin > 0 else 1.0

    @property
    def steadiness(self) -> float:
        """Kendall's tau with time: 1 where each level lies above all before it, -1 where below.

        Source: Mann 1945, "Nonparametric tests against trend".
        """
        pairs = list(itertools.combinations(self.levels.tolist(), 2))
        return float(sum((later > earlier) - (later < earlier) for earlier, later in pairs)) / max(len(pairs), 1)

    @property
    def largest_jump(self) -> float:
        """What the largest rise between neighbours is of the whole rise: near 1 for one step up."""
        whole = float(self.levels[-1] - self.levels[0])
        return float(np.diff(self.levels).max()) / whole if whole > 0 else 1.0

    def began(self, first: int) -> int:
        """Where a growth began that is a level at first and a line from there: `first` for a line from the start on.

        The earliest of the parts' ends whose fit by least squares is as good as that of the best, but for a tenth.
        """
        ends = [float(first), *self.steps[:-2].tolist()]
        levels = self.levels / max(float(np.abs(self.levels).max()), 1e-300)
        errors = []
        for end in ends:
            basis = np.stack([np.ones(len(self.steps)), np.maximum(self.steps - end, 0.0)], axis=1)
            fitted = basis @ np.linalg.lstsq(basis, levels, rcond=None)[0]
            errors.append(float(np.square(fitted - levels).sum()))
        good = 1.1 * min(errors) + 1e-3 * float(np.square(levels - levels.mean()).sum())
        return int(next(end for end, error in zip(ends, errors, strict=True) if error <= good))


def parts_of(curve: Curve, num: int = 8, *, quantile: float = 0.5, skip: int = 0) -> Parts:
    """`num` equal parts of a curve and a quantile of each; the first `skip` values, and what does not fill a part, are
    left out at the front."""
    size = (len(curve) - skip) // num
    first = len(curve) - size * num
    levels = quantiles(curve.values[first:].reshape(num, size), quantile)
    return Parts(curve.steps[first:].reshape(num, size)[:, -1], levels)
