"""A histogram in an event: its text is JSON with `edges` and `counts`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.events import ArtifactLogged


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values lie between each edge and the next."""

    edges: tuple[float, ...]
    counts: tuple[float, ...]

    @property
    def total(self) -> float:
        """The sum of the values, each taken for the middle of its bucket."""
        return sum(count * middle for count, middle in zip(self.counts, self._middles, strict=True))

    @property
    def squares(self) -> float:
        """The sum of their squares, likewise."""
        return sum(count * middle * middle for count, middle in zip(self.counts, self._middles, strict=True))

    @property
    def _middles(self) -> list[float]:
        return [(low + high) / 2 for low, high in zip(self.edges, self.edges[1:], strict=False)]


def histogram_of(event: ArtifactLogged) -> Histogram | None:
    """The histogram that `event` holds; None when its text is none."""
    try:
        found = json.loads(event.text)
        edges, counts = (tuple(map(float, found[name])) for name in ("edges", "counts"))
    except (ValueError, TypeError, KeyError):
        return None
    return Histogram(edges, counts) if len(edges) == len(counts) + 1 > 1 else None


def of_bins(low: float, high: float, counts: Sequence[float]) -> Histogram:
    """That of an examination: equally wide bins between `low` and `high`."""
    edges = (*(low + (high - low) * place / len(counts) for place in range(len(counts))), high)
    return Histogram(edges, tuple(counts))
