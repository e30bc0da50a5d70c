"""What a diagram is made of: curves that share a scale, the steps that are shown, and what is marked in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trimtab.report.curves import Curve

Role = Literal["train", "validation", "gap", "rate", "gradient", "other"]


@dataclass(frozen=True, slots=True)
class Trace:
    """One curve of a panel."""

    label: str
    curve: Curve
    role: Role
    points: bool = False
    """Drawn as points that a line joins: few exact values rather than many noisy ones."""
    best_step: int | None = None
    smooth: bool = True
    """Whether a smoothed line may be drawn over it: what is set, as a rate is, has no noise."""
    dashed: bool = False
    """So that one below it is seen where they are the same."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves that share a scale."""

    title: str
    traces: tuple[Trace, ...]
    unit: str = ""
    height: int = 200
    from_zero: bool = False
    positive: bool = True
    """Whether a logarithmic scale may be taken."""
    metrics: tuple[str, ...] = ()
    """Names of what is drawn: evidence on them is shaded here."""


@dataclass(frozen=True, slots=True)
class Shade:
    """Steps that a reader should look at."""

    first: int
    last: int
    label: str


@dataclass(frozen=True, slots=True)
class Window:
    """The steps that are shown, and what is marked in them."""

    first: int
    last: int
    onsets: tuple[tuple[int, str], ...] = ()
    """Where a finding begins, and what is said there."""
    shades: tuple[Shade, ...] = ()
    unit: str = "step"
    """What is counted along the axis."""

    def place(self, step: float) -> float:
        """Where a step lies, from 0 to 1."""
        return (step - self.first) / max(self.last - self.first, 1)
