"""Which samples, or steps, are worth a look: those with a high loss and those whose loss changed, none at random."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def most_telling(losses: Floats, previous: Floats | None, k: int) -> list[int]:
    """At most `k` places in `losses` [N], the most telling first.

    First those whose loss is not finite, in their order. Then in turns the highest loss and the greatest change, up or
    down, since `previous` [N]; NaN there: not known. Of equals the first is taken, and none twice.

    Source: own.

    Raises: ValueError when the two are of different length.
    """
    losses = np.asarray(losses, np.float64)
    if previous is not None and len(previous) != len(losses):
        raise ValueError(f"losses and previous are of one length. Received: {len(losses)} and {len(previous)}")
    bad = ~np.isfinite(losses)
    orders = [np.argsort(np.where(bad, np.inf, -losses), kind="stable").tolist()]
    if previous is not None:
        before = np.asarray(previous, np.float64)
        known = ~bad & np.isfinite(before)
        change = np.full(len(losses), -np.inf)
        change[known] = np.abs(losses[known] - before[known])
        order = np.argsort(-change, kind="stable")
        orders.append(order[known[order]].tolist())
    in_turns = (place for pair in itertools.zip_longest(*orders) for place in pair if place is not None)
    chosen = dict.fromkeys([*np.flatnonzero(bad).tolist(), *in_turns])
    return list(itertools.islice(chosen, max(0, k)))
