"""Curves made by formula, for laws that recorded runs are too few to show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trimtab.doctor import Case
from trimtab.events import RunStarted
from trimtab.runs.history import History

Array = np.ndarray[Any, np.dtype[np.float64]]


def falling(steps: int, *, start: float = 8.0, floor: float = 3.0, noise: float = 0.1, seed: int = 0) -> Array:
    """A loss that falls like a power of the step, with noise: the shape of a sound run."""
    at = np.arange(1, steps + 1)
    return floor + (start - floor) * (1 + at / (steps / 40)) ** -0.7 + noise * noise_of(steps, seed)


def noise_of(steps: int, seed: int = 0) -> Array:
    """Standard normal noise."""
    return np.random.default_rng(seed).normal(size=steps)


def cosine(steps: int, peak: float = 1e-3, warmup: float = 0.05) -> Array:
    """Warm-up and cosine decay to a tenth."""
    at = np.arange(1, steps + 1) / steps
    decay = 0.1 + 0.45 * (1 + np.cos(np.pi * np.clip((at - warmup) / (1 - warmup), 0, 1)))
    return peak * np.where(at < warmup, at / warmup, decay)


def case_of(
    loss: Array,
    *,
    rates: Array | None = None,
    validation: Mapping[int, float] | None = None,
    total_steps: int | None = None,
    config: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    **series: Array,
) -> Case:
    """A case of these per-step series; dots for slashes in names: `train_accuracy` is `train/accuracy`."""
    history = History()
    history.observe(RunStarted(0, 1, 0, None, total_steps or len(loss)))
    steps = np.arange(1, len(loss) + 1)
    history.add("train/loss", steps, np.asarray(loss, dtype=np.float64))
    if rates is not None:
        history.add("learning_rate", steps, rates)
    for name, values in series.items():
        history.add(name, steps, values)
    for step, value in (validation or {}).items():
        history.add("validation/loss", np.array([step]), np.array([value]))
    return Case(history, config or {}, facts or {})
