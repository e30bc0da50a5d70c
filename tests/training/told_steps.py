"""Curves of a run as the windows in which they are told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from trimtab.events import StepsEnded

Values = np.ndarray[Any, np.dtype[np.float64]]


def windows(
    loss: Values,
    norm: Values | None = None,
    rate: Values | None = None,
    skipped: Values | None = None,
    size: int = 10,
) -> Iterator[StepsEnded]:
    """The values as windows of `size` steps, the first step being 1."""
    columns = {
        "train/loss": loss,
        "grad_norm": np.ones(len(loss)) if norm is None else norm,
        "learning_rate": np.full(len(loss), 1e-3) if rate is None else rate,
        "skipped": np.zeros(len(loss)) if skipped is None else skipped,
    }
    for begin in range(0, len(loss), size):
        part = {name: values[begin : begin + size] for name, values in columns.items()}
        yield StepsEnded(begin + 1, min(begin + size, len(loss)), part, {})


def descent(steps: int, seed: int = 0, noise: float = 0.05) -> Values:
    """From 8 to 3, fast at first."""
    at = np.arange(steps)
    values: Values = 3 + 5 * np.exp(-at / 15) + noise * np.random.default_rng(seed).normal(size=steps)
    return values
