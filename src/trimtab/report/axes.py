"""Axes: where a value lies, and at which round numbers the eye can hold on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab.report.markup import Markup, element, percentage
from trimtab.runs import format

DECADES: Final = 1.5
"""From so many powers of ten on an axis is logarithmic."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Axis:
    """Values from `low` to `high`, drawn from 0 to 1."""

    low: float
    high: float
    logarithmic: bool = False
    unit: str = ""

    def place(self, values: Floats) -> Floats:
        """Where `values` lie: below 0 and above 1 beyond the axis, and -inf for no place at all."""
        if not self.logarithmic:
            return (values - self.low) / (self.high - self.low)
        with np.errstate(divide="ignore", invalid="ignore"):
            placed: Floats = np.log(values / self.low) / math.log(self.high / self.low)
        return np.where(values > 0, placed, np.where(np.isnan(values), np.nan, -np.inf))

    def at(self, value: float) -> float:
        """Where one value lies."""
        return float(self.place(np.array([value], np.float64))[0])

    def ticks(self, wanted: int = 5) -> list[tuple[float, str]]:
        """Place and label of about `wanted` round values."""
        values = self._decades(wanted) if self.logarithmic else self._even(wanted)
        return [(self.at(value), label) for value, label in zip(values, self._labels(values), strict=True)]

    def _even(self, wanted: int) -> list[float]:
        span = self.high - self.low
        near = [nice_step(span / num) for num in range(max(2, wanted - 2), wanted + 4)]
        step = min(near, key=lambda size: abs(span / size - wanted))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]

    def _decades(self, wanted: int) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for digits in ((1, 2, 5), (1, 3), (1,)):
            values = [digit * 10.0**power for power in range(first, last + 1) for digit in digits]
            values = [value for value in values if self.low * 0.999 <= value <= self.high * 1.001]
            if len(values) <= wanted + 1:
                break
        stride = max(1, math.ceil(len(values) / (wanted + 1)))
        return values[::stride]

    def _labels(self, values: list[float]) -> list[str]:
        if self.unit == "bytes":
            return ["0" if not value else format.size(value).replace(".0 ", " ") for value in values]
        largest = max((abs(value) for value in values), default=0.0)
        if self.logarithmic:
            return [_scientific(value) if largest >= 1e5 or min(values) < 1e-3 else f"{value:,.6g}" for value in values]
        step = values[1] - values[0] if len(values) > 1 else largest or 1.0
        return [
            "0" if value == 0 else label
            for value, label in zip(values, self._even_labels(values, step, largest), strict=True)
        ]

    def _even_labels(self, values: list[float], step: float, largest: float) -> list[str]:
        if self.unit == "fraction":
            digits = max(0, -math.floor(math.log10(step * 100) + 1e-9))
            return [f"{100 * value:.{digits}f} %" for value in values]
        if 0 < largest < 0.01 or largest >= 1e7:
            labels = [_scientific(value) for value in values]
            if len(set(labels)) < len(labels):  # a narrow range far from zero
                digits = math.floor(math.log10(largest)) - math.floor(math.log10(step)) + 1
                labels = [f"{value:.{digits}e}" for value in values]
            return labels
        if step >= 1000:
            return [f"{value / 1000:,.6g}k" for value in values]
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        if abs(step * 10**digits - round(step * 10**digits)) > 1e-6:
            digits += 1  # a step of 0.25
        return [f"{value:,.{digits}f}" for value in values]


def value_axis(low: float, high: float, *, positive: bool, unit: str = "", from_zero: bool = False) -> Axis:
    """An axis that holds `low` to `high` with a little air; logarithmic when they span decades and are positive."""
    if positive and low > 0 and math.log10(high / low) >= DECADES:
        air = (high / low) ** 0.04
        return Axis(low / air, high * air, True, unit)
    if from_zero and low >= 0:
        low = 0.0
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        air = abs(high) * 0.1 or 1.0
        return Axis(low - air if low else 0.0, high + air, False, unit)
    air = 0.06 * (high - low)
    return Axis(low if from_zero and low == 0 else low - air, high + air, False, unit)


def step_ticks(first: int, last: int, wanted: int = 8) -> list[tuple[float, str]]:
    """Place between `first` and `last`, and label, of round steps."""
    if last <= first:
        return [(0.5, format.count(first))]
    step = max(1, round(nice_step((last - first) / wanted)))
    values = range(math.ceil(first / step) * step, last + 1, step)
    if step % 1000 == 0 and last >= 100_000:
        labels = ["0" if not value else f"{value // 1000:,}k" for value in values]
    else:
        labels = [format.count(value) for value in values]
    return [((value - first) / (last - first), label) for value, label in zip(values, labels, strict=True)]


def step_labels(first: int, last: int, height: float) -> list[Markup]:
    """The ticks' labels, below a picture of that height and as wide as its page; half of them are minor."""
    return [
        element(
            "text",
            label,
            class_="tick" if index % 2 == 0 else "tick minor",
            x=percentage(place),
            y=height + 16,
            text_anchor="start" if place < 0.02 else "end" if place > 0.97 else "middle",
        )
        for index, (place, label) in enumerate(step_ticks(first, last))
    ]


def nice_step(size: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is not below `size`."""
    power = 10.0 ** math.floor(math.log10(size)) if size > 0 and math.isfinite(size) else 1.0
    for digit in (1.0, 2.0, 2.5, 5.0):
        if digit * power >= size * (1 - 1e-9):
            return digit * power
    return 10.0 * power


def _scientific(value: float) -> str:
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
