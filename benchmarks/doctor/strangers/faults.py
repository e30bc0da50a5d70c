"""The table of faults: how each is planted, what its log must carry, and what must be seen against its sound twin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from .plan import Plan
from .train import Trace

Plant = Callable[[Plan, int, np.random.RandomState], tuple[Plan, int]]
"""The sound plan (which it may bend first), the severity, randomness -> the faulty plan and the step of onset."""
Seen = Callable[[Trace, Trace, int], bool]
"""The faulty run, its twin, the onset -> whether anybody could see it."""
SEVERITIES = ("mild", "clear", "gross")


@dataclass(frozen=True)
class Way:
    """One way in which a fault comes about."""

    plant: Plant
    seen: Seen
    kinds: tuple[str, ...]
    needs: frozenset[str]
    only: Callable[[str, Any], bool] | None
    dense: bool
    """Every step or two must be in the log, as it was."""


FAULTS: dict[str, list[Way]] = {}


def fault(
    code: str,
    seen: Seen,
    kinds: tuple[str, ...] = (),
    needs: str = "",
    only: Callable[[str, Any], bool] | None = None,
    dense: bool = False,
) -> Callable[[Plant], Plant]:
    """Puts a way to plant a fault into the table."""

    def put(plant: Plant) -> Plant:
        FAULTS.setdefault(code, []).append(Way(plant, seen, kinds, frozenset(needs.split()), only, dense))
        return plant

    return put


def worse(a: Trace, b: Trace, share: float = 0.06) -> bool:
    """The validation loss at the end is worse than the twin's by that share and by more than chance."""
    if not np.isfinite(a.final):
        return False
    if len(a.samples) == len(b.samples):
        gap = a.samples - b.samples
        error = 3 * gap.std() / len(gap) ** 0.5
    else:
        error = 3 * (a.samples.std() / len(a.samples) ** 0.5 + b.samples.std() / len(b.samples) ** 0.5)
    gap_of_means = float(a.samples.mean() - b.samples.mean())
    return bool(gap_of_means > error and gap_of_means > share * abs(b.samples.mean()))


def window(values: np.ndarray, begin: float, end: float) -> float:
    """The mean of a part of a run."""
    many = len(values)
    part = values[int(begin * many) : max(int(begin * many) + 1, int(end * many))]
    return float(np.nanmean(part))


def finite(a: Trace) -> bool:
    """Nothing in the log is not a number, or overflows."""
    return bool(np.isfinite(a.loss).all() and np.isfinite(a.valid()).all())


def settled(a: Trace) -> bool:
    """The loss stands in the second half."""
    first, last = window(a.loss, 0.5, 0.75), window(a.loss, 0.75, 1)
    return abs(first - last) < 0.025 * abs(first)


def flat(a: Trace, b: Trace, _: int) -> bool:
    """Worse than the twin by much, and standing."""
    return finite(a) and settled(a) and worse(a, b, 0.12)


def simply_worse(a: Trace, b: Trace, _: int) -> bool:
    """Finite, and worse than the twin."""
    return finite(a) and worse(a, b)


def planted() -> dict[str, list[Way]]:
    """The whole table."""
    for part in ("data", "machine", "learning", "model", "rate", "scale"):
        import_module(f".faults_of_{part}", __package__)
    return FAULTS
