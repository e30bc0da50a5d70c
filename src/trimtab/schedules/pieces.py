"""Curves of parts: levels that are held and joined by ramps, and whole numbers that are held."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import final

from trimtab.schedules.curves import warmed


@final
@dataclass(frozen=True, slots=True)
class Piecewise:
    """levels[k] from step starts[k - 1] on; its first `join_steps` steps lead there from the level before.

    Within a ramp of j steps the step number i (from 1) has before + (after - before) * x, with x = i / j, or
    (1 - cos(pi i / j)) / 2: the last of them has the new level. A ramp is never longer than its part, so that each
    level is reached. In a warm-up of w steps, step s has levels[0] * (s + 1) / w. Source: own.
    """

    total_steps: int
    levels: tuple[float, ...]
    starts: tuple[int, ...]
    """The first step of each part but the first, in order."""
    join_steps: int = 0
    shape: str = "cosine"
    warmup_steps: int = 0

    def factor(self, step: int) -> float:
        """The warm-up's part, a level, or a place between two."""
        warm = warmed(step, self.warmup_steps)
        if warm is not None:
            return self.levels[0] * warm
        part = bisect_right(self.starts, step)
        if part == 0:
            return self.levels[0]
        begin, before, after = self.starts[part - 1], self.levels[part - 1], self.levels[part]
        end = self.starts[part] if part < len(self.starts) else self.total_steps
        join = min(self.join_steps, end - begin)
        done = step - begin + 1
        if done >= join:
            return after
        x = done / join if self.shape == "linear" else 0.5 * (1.0 - math.cos(math.pi * done / join))
        return before + (after - before) * x


@final
@dataclass(frozen=True, slots=True)
class Stairs:
    """values[k] from step starts[k - 1] on."""

    values: tuple[int, ...]
    starts: tuple[int, ...]

    def value(self, step: int) -> int:
        """The value at `step`, counted from 0."""
        return self.values[bisect_right(self.starts, step)]

    def mean(self, steps: int) -> float:
        """The mean over the first `steps` steps."""
        edges = [0, *(min(start, steps) for start in self.starts), steps]
        parts = zip(self.values, edges[:-1], edges[1:], strict=True)
        return sum(value * (end - begin) for value, begin, end in parts) / max(1, steps)
