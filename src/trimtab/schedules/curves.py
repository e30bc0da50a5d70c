"""The curves: `factor(step)` for step 0, 1, …; the last step of a run of N steps is step N - 1.

With a warm-up of w steps, step s < w has the factor (s + 1) / w: the first step trains (it is not 0), and
step w - 1 already has the full rate. A decay from step a to the last step reaches `floor` exactly there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, final


class Schedule(Protocol):
    """A pure function from step to factor."""

    def factor(self, step: int) -> float:
        """The factor at `step`, counted from 0."""
        ...


def warmed(step: int, warmup_steps: int) -> float | None:
    """The factor of a linear warm-up; None once it is over."""
    return (step + 1) / warmup_steps if step < warmup_steps else None


def _progress(step: int, start: int, last: int) -> float:
    """0 just before `start`, 1 at `last`; beyond it stays 1."""
    length = last - start + 1
    return 1.0 if length <= 0 else min(1.0, max(0.0, (step - start + 1) / length))


@final
@dataclass(frozen=True, slots=True)
class Constant:
    """1 after the warm-up."""

    warmup_steps: int = 0

    def factor(self, step: int) -> float:
        """1, or the warm-up's part."""
        warm = warmed(step, self.warmup_steps)
        return 1.0 if warm is None else warm


@final
@dataclass(frozen=True, slots=True)
class Linear:
    """A straight line from 1 to `floor` after the warm-up."""

    total_steps: int
    warmup_steps: int = 0
    floor: float = 0.0

    def factor(self, step: int) -> float:
        """1 - (1 - floor) * progress."""
        warm = warmed(step, self.warmup_steps)
        if warm is not None:
            return warm
        return 1.0 - (1.0 - self.floor) * _progress(step, self.warmup_steps, self.total_steps - 1)


@final
@dataclass(frozen=True, slots=True)
class Cosine:
    """floor + (1 - floor) * (1 + cos(pi * progress)) / 2 after the warm-up.

    Source: Loshchilov and Hutter 2017, arXiv 1608.03983, equation 5, one period.
    """

    total_steps: int
    warmup_steps: int = 0
    floor: float = 0.0

    def factor(self, step: int) -> float:
        """The warm-up's part, or the cosine's."""
        warm = warmed(step, self.warmup_steps)
        if warm is not None:
            return warm
        progress = _progress(step, self.warmup_steps, self.total_steps - 1)
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * progress))


@final
@dataclass(frozen=True, slots=True)
class Polynomial:
    """floor + (1 - floor) * (1 - progress)^power after the warm-up.

    Source: as in torch's PolynomialLR and transformers' get_polynomial_decay_schedule_with_warmup.
    """

    total_steps: int
    warmup_steps: int = 0
    floor: float = 0.0
    power: float = 2.0

    def factor(self, step: int) -> float:
        """The warm-up's part, or the power's."""
        warm = warmed(step, self.warmup_steps)
        if warm is not None:
            return warm
        left = 1.0 - _progress(step, self.warmup_steps, self.total_steps - 1)
        return float(self.floor + (1.0 - self.floor) * left**self.power)


@final
@dataclass(frozen=True, slots=True)
class Exponential:
    """floor^progress after the warm-up: torch's ExponentialLR with a gamma of floor^(1 / steps of decay)."""

    total_steps: int
    warmup_steps: int = 0
    floor: float = 0.01

    def factor(self, step: int) -> float:
        """The warm-up's part, or the power of the floor."""
        warm = warmed(step, self.warmup_steps)
        if warm is not None:
            return warm
        return float(self.floor ** _progress(step, self.warmup_steps, self.total_steps - 1))


@final
@dataclass(frozen=True, slots=True)
class InverseSquareRoot:
    """sqrt(timescale / (timescale + steps since the warm-up)), never below `floor`.

    Source: Vaswani et al. 2017, arXiv 1706.03762, equation 3, where the timescale is the warm-up; timescale as in
    transformers' get_inverse_sqrt_schedule.
    """

    warmup_steps: int = 0
    timescale: int = 10_000
    floor: float = 0.0

    def factor(self, step: int) -> float:
        """The warm-up's part, or the root's."""
        warm = warmed(step, self.warmup_steps)
        if warm is not None:
            return warm
        since = step + 1 - self.warmup_steps
        return max(self.floor, math.sqrt(self.timescale / (self.timescale + since)))


@final
@dataclass(frozen=True, slots=True)
class StepDecay:
    """decay^n after n stretches of `every` steps since the warm-up, never below `floor`; torch's StepLR."""

    warmup_steps: int = 0
    every: int = 1
    decay: float = 0.1
    floor: float = 0.0

    def factor(self, step: int) -> float:
        """The warm-up's part, or the stair's."""
        warm = warmed(step, self.warmup_steps)
        if warm is not None:
            return warm
        return float(max(self.floor, self.decay ** ((step - self.warmup_steps) // self.every)))


@final
@dataclass(frozen=True, slots=True)
class Wsd:
    """1 after the warm-up; in the last `decay_steps` a fall to `floor`.

    Source: Hu et al. 2024, arXiv 2404.06395, section 4; shape `sqrt`: Hägele et al. 2024, arXiv 2405.18392,
    equation 2.
    """

    total_steps: int
    warmup_steps: int = 0
    decay_steps: int = 0
    shape: str = "linear"
    floor: float = 0.0

    def factor(self, step: int) -> float:
        """The warm-up's part, 1, or the fall's."""
        warm = warmed(step, self.warmup_steps)
        if warm is not None:
            return warm
        start = max(self.warmup_steps, self.total_steps - self.decay_steps)
        if step < start:
            return 1.0
        progress = _progress(step, start, self.total_steps - 1)
        fall = progress if self.shape == "linear" else math.sqrt(progress)
        return 1.0 - (1.0 - self.floor) * fall
