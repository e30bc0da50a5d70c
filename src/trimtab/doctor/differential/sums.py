"""Sums that features share."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from trimtab.doctor.reading.curves import Floats

Measured = tuple[str, float | None]
"""The name of a feature and its value; None where it cannot be told."""

LARGEST: Final = 1e6


def ratio(of: float, to: float) -> float | None:
    """Natural logarithm of a ratio of two positive numbers; None of others."""
    return math.log(of) - math.log(to) if 0.0 < of < math.inf and 0.0 < to < math.inf else None


def share(of: float, to: float) -> float | None:
    """A number in units of another, within a million; None where that is 0."""
    return min(max(of / to, -LARGEST), LARGEST) if to > 0.0 and math.isfinite(of) else None


def slope_in_errors(values: Floats) -> float | None:
    """The slope of a straight line over its standard error; None for fewer than four values."""
    num = len(values)
    if num < 4:
        return None
    at = np.arange(num) - (num - 1) / 2
    slope = float(at @ values) / float(at @ at)
    left = values - values.mean() - slope * at
    error = math.sqrt(float(left @ left) / (num - 2) / float(at @ at))
    return share(slope, error)


def autocorrelation(values: Floats, most: int) -> Floats:
    """Of the lags 0 to `most`, by Fourier transform."""
    centred = values - values.mean()
    spectrum = np.fft.rfft(centred, 2 * len(values))
    found = np.fft.irfft(np.abs(spectrum) ** 2)[: most + 1]
    return np.asarray(found / found[0] if found[0] > 0 else np.zeros(most + 1))


def ranks_agree(one: Floats, other: Floats) -> float | None:
    """Spearman's rank correlation; None where one of them stands still or there are fewer than five."""
    if len(one) < 5:
        return None
    first, second = (values.argsort(kind="stable").argsort() - (len(one) - 1) / 2 for values in (one, other))
    if one.min() == one.max() or other.min() == other.max():
        return None
    return float(first @ second / math.sqrt(float(first @ first) * float(second @ second)))
