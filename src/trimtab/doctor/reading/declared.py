"""The rates of another trainer beside the schedule that its log names: whether any schedule of that name fits them.

What a name leaves open is tried: how low it ends, how high it is, and how long it is where the plan is not known.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.reading.curves import Curve, Floats, Phases
from trimtab.doctor.reading.laid_out import FLOORS

FEWEST: Final = 6
OFF: Final = 0.1
"""Of the full rate."""
PART: Final = 0.2
"""Of the rates, that are off."""
MOST_BY_CHANCE: Final = 3
"""Rates: fewer that are off say nothing."""
CLEAR: Final = 0.25
"""Of the full rate: one of them is so far off."""
FURTHEST: Final = 20.0
"""Times what was seen, or a part of it, that the end is looked for where the plan is not known."""

LOWEST: Final = (*FLOORS, 0.2, 0.3, 0.4, 0.5)
"""Of the full rate, that a schedule may be told to end at."""


class Departure(NamedTuple):
    """Where rates leave the schedule that was named, and where they are furthest from it."""

    name: str
    onset: int
    step: int
    applied: float
    planned: float
    share: float
    """Of the rates, that are off."""


def departure(case: Case, rates: Curve) -> Departure | None:
    """How the rates differ from every schedule of the name that the log gives; None where one fits, or none is named.

    One that only comes down sooner is another's matter: it decayed too early. An epoch's row may tell the rate of its
    first step or of its last.
    """
    name, planned = case.fact("schedule", "name"), _length(case)
    if (
        name is None
        or len(rates) < FEWEST
        or float(rates.values.max()) <= 0
        or (planned is None and not case.counts_epochs)
    ):
        return None
    above, expected = min(_tried(case, rates, name, planned), key=lambda one: _misfit(one[0]))
    is_off = np.abs(above) > OFF
    can_be_sooner = planned is not None or name == "constant"
    distance = above if can_be_sooner else np.abs(above)
    at = int(np.argmax(distance))
    if float(is_off.mean()) < PART or (distance > OFF).sum() < MOST_BY_CHANCE or float(distance[at]) < CLEAR:
        return None
    return Departure(
        name,
        int(rates.steps[int(np.argmax(is_off))]),
        int(rates.steps[at]),
        float(rates.values[at]),
        float(expected[at]),
        float(is_off.mean()),
    )


def _length(case: Case) -> float | None:
    """Steps of the schedule: its own where it has one and the log counts the same steps, else the run's."""
    planned, own = case.number("planned_steps"), case.number("schedule", "length")
    counts_same = planned is not None or (own is not None and not case.counts_epochs and own >= case.history.last_step)
    return own if own is not None and counts_same else planned


def _tried(case: Case, rates: Curve, name: str, planned: float | None) -> Iterator[tuple[Floats, Floats]]:
    """How far, of the full rate, the rates lie above each schedule of a name, and its rates."""
    highest = float(rates.values.max())
    full = Phases.of(case.history.get("learning_rate"), rates.first_step, rates.last_step).peak  # without a burst
    for begin in (rates.first_step, rates.first_step - 1) if planned is None else (0,):
        done = (rates.steps - begin).astype(np.float64)
        top = float(done[int(np.argmax(rates.values >= 0.99 * highest))])
        ends = done[-1] * np.geomspace(1 / FURTHEST, FURTHEST, 128) if planned is None else (planned,)
        for end, floor, height in itertools.product(ends, LOWEST, {full, highest}):
            shape = _shape(name, done, end, _warmup(case, end, top), floor)
            yield rates.values / height - shape, shape * height


def _misfit(above: Floats) -> tuple[float, float]:
    return float((np.abs(above) > OFF).mean()), float(np.abs(above).sum())


def _warmup(case: Case, end: float, top: float) -> float:
    """Where the full rate begins: as it is told, else where the highest is met."""
    steps, total = case.number("schedule", "warmup_steps"), case.number("schedule", "planned_steps")
    return steps / total * end if steps is not None and total else 0.0 if steps == 0 else top


def _shape(name: str, done: Floats, end: float, warmup: float, floor: float) -> Floats:
    part = np.clip((done - warmup) / max(end - warmup, 1.0), 0.0, 1.0)
    left = {"constant": np.ones(len(done)), "linear": 1.0 - part, "cosine": 0.5 * (1.0 + np.cos(np.pi * part))}[name]
    rise = np.minimum(done / warmup, 1.0) if warmup > 0 else 1.0
    shape: Floats = rise * (floor + (1.0 - floor) * left)
    return shape
