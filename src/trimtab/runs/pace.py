"""How long the steps of a run took, and how much of that was waiting for data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final, Self, final

import numpy as np
from numpy.typing import NDArray

from trimtab.events import Event, RunStarted, StepsEnded

_WARMUP: Final = 2
"""First steps of an attempt, which compile, capture and fill caches."""
_LEAST: Final = 3


@final
@dataclass(frozen=True, slots=True)
class Pace:
    """Of all steps, but for the first of each attempt."""

    num_steps: int
    step_seconds: float
    """Median."""
    quartiles: tuple[float, float]
    mean_seconds: float
    data_seconds: float
    """Mean seconds a step that were spent waiting for data."""
    tokens_per_second: float
    """That are read in a mean step, at the median pace."""
    memory_bytes: float | None
    """The newest that was told."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, events: Iterable[Event]) -> Self | None:
        """Of a run's events, in their order; None where there are too few steps to say."""
        parts: list[NDArray[np.float64]] = []
        memory: float | None = None
        skip = _WARMUP
        for event in events:
            if isinstance(event, RunStarted):
                skip = _WARMUP
            elif isinstance(event, StepsEnded):
                memory = event.values.get("memory_bytes", memory)
                if (seconds := event.per_step.get("step_seconds")) is not None:
                    zeros = np.zeros(len(seconds))
                    waits, read = event.per_step.get("data_seconds", zeros), event.per_step.get("tokens", zeros)
                    parts.append(np.stack([seconds, waits, event.per_step.get("tokens_read", read)])[:, skip:])
                    skip = max(0, skip - len(seconds))
        seconds, waited, tokens = np.concatenate(parts, axis=1) if parts else np.zeros((3, 0))
        if len(seconds) < _LEAST:
            return None
        low, middle, high = (float(value) for value in np.quantile(seconds, (0.25, 0.5, 0.75)))
        return cls(
            num_steps=len(seconds),
            step_seconds=middle,
            quartiles=(low, high),
            mean_seconds=float(seconds.mean()),
            data_seconds=float(waited.mean()),
            tokens_per_second=float(tokens.mean()) / middle if middle > 0 else 0.0,
            memory_bytes=memory,
        )
