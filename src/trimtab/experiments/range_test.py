"""What a learning-rate range test says: the ramp, the smoothed curve, where it falls fastest, where it diverges.

No tensor, no model: rates and losses as host values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, final

import numpy as np

from trimtab.errors import UsageError
from trimtab.events import FloatArray

_RUNNING: Final = 0.8
"""What a running mean keeps of its past in a step: that of about five steps."""
_REACH: Final = 0.35
"""Decades to either side that the smoothed curve and its slope are taken over."""
_LEAST_POINTS: Final = 5
"""Neighbours to either side, where the ramp is too coarse for that."""
_LEAST_FALL: Final = 0.02
"""Of the first loss: a smaller fall over the whole ramp is none."""


@dataclass(frozen=True, slots=True)
class RangeTest:
    """Rates, losses, and what follows from them; rates are as applied in a step, groups' factors aside."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    """Of each step, before the update at its rate; the last may be no number."""
    smoothed: tuple[float, ...]
    steepest: float | None
    """Where the smoothed loss falls fastest over the logarithm of the rate; None where it never falls."""
    lowest: float | None
    """Where the smoothed loss is lowest."""
    diverged: float | None
    """Where the loss was above `divergence` times its best, back above where it began, or no number; None when it was
    none of these up to the last rate."""
    divergence: float
    suggestion: float | None
    """To be set as `optimizer.learning_rate`; two digits. None when the loss does not fall."""
    why: str
    """The suggestion in a sentence, or why there is none."""
    scale: float = 1.0
    """What the run applies of the rate that is set, when it is scaled with the batch."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def ramp(lowest: float, highest: float, steps: int) -> list[float]:
    """`steps` rates from `lowest` to `highest`, each the same multiple of the one before. Raises: UsageError."""
    if not 0.0 < lowest < highest < math.inf:
        raise UsageError(f"a range test rises from above 0. Received: from {lowest:g} to {highest:g}")
    if steps < 4 * _LEAST_POINTS:
        raise UsageError(f"steps: must be at least {4 * _LEAST_POINTS}, to see a slope. Received: {steps}")
    return [float(rate) for rate in np.geomspace(lowest, highest, steps)]


@final
class Divergence:
    """Says, loss by loss, whether it diverges: a loss is no number, or their running mean is above `times` the lowest
    one, or has fallen and is back above where it began.
    """

    def __init__(self, times: float) -> None:
        """Raises: UsageError unless `times` is above 1."""
        if not 1.0 < times < math.inf:
            raise UsageError(f"a loss diverges at more than 1 times its best. Received: {times:g}")
        self._times = times
        self._sum = self._weight = 0.0
        self._best = self._first = math.inf
        self.is_over = False

    def is_reached(self, loss: float) -> bool:
        """Whether it has diverged with this loss, or before."""
        if self.is_over or not math.isfinite(loss):
            self.is_over = True
            return True
        self._sum = _RUNNING * self._sum + (1.0 - _RUNNING) * loss
        self._weight = _RUNNING * self._weight + (1.0 - _RUNNING)
        mean = self._sum / self._weight
        self._first = mean if self._first == math.inf else self._first
        self._best = min(self._best, mean)
        is_back = self._best < (1.0 - _LEAST_FALL) * self._first < self._first < mean
        self.is_over = is_back or mean > self._times * self._best
        return self.is_over


def judge(rates: Sequence[float], losses: Sequence[float], times: float, scale: float = 1.0) -> RangeTest:
    """The smoothed curve, and what it suggests.

    The curve is a local line: at each rate the least squares over its neighbours, which weigh less the farther they
    are (tricube, as in loess), so that its height is the smoothed loss and its inclination the slope. The suggestion is
    the rate of the steepest descent, or a tenth of the rate that diverges, if that is lower. `scale` is what the run
    applies of the rate that is set.
    Source: Smith 2017, arXiv 1506.01186, section 3.3; the steepest point as in fastai and Lightning; local lines:
    Cleveland 1979.
    """
    divergence = Divergence(times)
    end = next((index for index, loss in enumerate(losses) if divergence.is_reached(loss)), None)
    diverged = None if end is None else rates[end]
    heights, slopes = _local_lines(np.log10(rates), np.asarray(losses, dtype=np.float64), end)
    low = int(np.nanargmin(heights)) if np.isfinite(heights).any() else None
    steepest = None
    if low is not None and low > 0 and heights[0] - heights[low] > _LEAST_FALL * abs(heights[0]):
        steepest = rates[int(np.argmin(slopes[: low + 1]))]
    suggestion, why = _suggest(steepest, diverged, scale)
    return RangeTest(
        tuple(rates),
        tuple(float(loss) for loss in losses),
        tuple(float(height) for height in heights),
        steepest,
        None if low is None else rates[low],
        diverged,
        times,
        suggestion,
        why,
        scale,
    )


def _suggest(steepest: float | None, diverged: float | None, scale: float) -> tuple[float | None, str]:
    if steepest is None:
        return None, "the loss does not fall at any of these rates, so that none can be suggested"
    at = f"the loss falls fastest at {steepest:.2g}"
    if diverged is None:
        applied, why = steepest, f"{at}, and does not diverge up to the last rate"
    elif steepest <= diverged / 10.0:
        applied, why = steepest, f"{at}, which is below a tenth of {diverged:.2g}, where it diverges"
    else:
        applied, why = (
            diverged / 10.0,
            f"a tenth of {diverged:.2g}, where the loss diverges; {at}, which is closer to it",
        )
    if scale != 1.0:
        why += f"; the run applies {scale:.3g} of what is set"
    return float(f"{applied / scale:.1e}"), why


def _local_lines(x: FloatArray, y: FloatArray, end: int | None) -> tuple[FloatArray, FloatArray]:
    """Height and slope of a local line at each x; NaN from where the curve has diverged."""
    last = len(y) if end is None else end
    heights, slopes = np.full(len(y), np.nan), np.full(len(y), np.nan)
    known_x, known_y = x[:last], y[:last]
    spacing = (x[-1] - x[0]) / max(1, len(x) - 1)
    reach = max(_REACH, (_LEAST_POINTS + 0.5) * spacing)
    for index in range(last):
        distance = np.abs(known_x - x[index]) / reach
        weights = np.where(distance < 1.0, (1.0 - distance**3) ** 3, 0.0)
        total = weights.sum()
        mean_x, mean_y = (weights * known_x).sum() / total, (weights * known_y).sum() / total
        spread = (weights * (known_x - mean_x) ** 2).sum()
        slopes[index] = (weights * (known_x - mean_x) * (known_y - mean_y)).sum() / spread if spread > 0 else 0.0
        heights[index] = mean_y + slopes[index] * (x[index] - mean_x)
    return heights, slopes
