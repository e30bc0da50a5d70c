"""Curves that rise and fall: as in curves.py a step is counted with its end, so that none begins at 0.

Where torch has the same curve, the factor of step s is torch's after s + 1 calls of `step()`; one-cycle's is the one
after s, as its first step has a rate of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Triangular:
    """floor + (1 - floor) * height * x, where x rises from 0 to 1 in `rise_steps` and falls to 0 in `fall_steps`.

    The height is per_cycle^(cycles completed) * per_step^(steps): per_cycle 0.5 is `triangular2`, per_step < 1 is
    `exp_range`. Source: Smith 2017, arXiv 1506.01186, section 3.2; torch's CyclicLR.
    """

    rise_steps: int
    fall_steps: int
    floor: float = 0.0
    per_cycle: float = 1.0
    per_step: float = 1.0

    def factor(self, step: int) -> float:
        """The triangle's, in whatever cycle."""
        cycle, within = divmod(step + 1, self.rise_steps + self.fall_steps)
        if within <= self.rise_steps:
            x = within / self.rise_steps
        else:
            x = (self.rise_steps + self.fall_steps - within) / self.fall_steps
        height = float(self.per_cycle**cycle * self.per_step ** (step + 1))
        return self.floor + (1.0 - self.floor) * height * x


@final
@dataclass(frozen=True, slots=True)
class OneCycle:
    """From `start` at the first step to 1 at the end of the warm-up, then to `floor` at the last step.

    Source: Smith and Topin 2018, arXiv 1708.07120, section 3; torch's OneCycleLR with two phases.
    """

    total_steps: int
    warmup_steps: int
    start: float = 0.04
    floor: float = 4e-6
    shape: str = "cosine"

    def factor(self, step: int) -> float:
        """The rise's, the fall's, or beyond the last step the floor."""
        peak, last = self.warmup_steps - 1, self.total_steps - 1
        if step < peak:
            return self._between(self.start, 1.0, step / peak)
        return self._between(1.0, self.floor, min(1.0, (step - peak) / (last - peak)) if last > peak else 0.0)

    def _between(self, begin: float, end: float, part: float) -> float:
        moved = part if self.shape == "linear" else (1.0 - math.cos(math.pi * part)) / 2.0
        return begin + (end - begin) * moved


@final
@dataclass(frozen=True, slots=True)
class WarmRestarts:
    """floor + (1 - floor) * (1 + cos(pi * t / T)) / 2, t from 1 to T; then anew with `growth` times the T before.

    Source: Loshchilov and Hutter 2017, arXiv 1608.03983, equation 5. torch's CosineAnnealingWarmRestarts restarts where
    this is at the floor.
    """

    warmup_steps: int
    period_steps: int
    growth: int = 1
    floor: float = 0.0

    def factor(self, step: int) -> float:
        """The warm-up's part, or the cosine's of the period that `step` lies in."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        since, period = step - self.warmup_steps, self.period_steps
        while since >= period and self.growth > 1:
            since, period = since - period, period * self.growth
        progress = (since % period + 1) / period
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * progress))
