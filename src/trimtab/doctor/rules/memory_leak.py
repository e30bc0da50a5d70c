"""memory-leak: memory grows steadily.

Looks for: memory that still grows when the run has long found its shape: of eight equal parts of what follows the first
    fifth nearly every one lies above those before it (Kendall's tau of 0.85), the second half grows at least a third as
    much as the first, no single jump makes most of it, and the growth is at least 32 MiB and 5 % of the level.
Why it matters: the run ends when memory is full, hours or days after the fault, and often slows down before that.
Evidence: the level at both ends, how much a thousand steps add, and when what is left is used up, where that is known.
Remedy: keep numbers, not tensors, of what is logged (`loss.item()` or `loss.detach()`); bound lists and caches.
False alarms: memory that grows and then stands (an allocator that finds its size, files that are mapped and read for
    the first time, longer texts that come once) bends: its second half grows less. Where batches grow, and a third as
    much as memory does, it takes more by right, and is not judged.
Source: own; Mann 1945 for the trend test.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.trends import parts_of
from trimtab.runs import format

STEADY: Final = 0.85
LEAST_PART: Final = 0.05
LEAST_BYTES: Final = 32 * 2**20
GRAVE_PART: Final = 0.25
STILL: Final = 0.33
"""Of the growth of the first half: a second half that grows less bends, and will stand."""
ONE_JUMP: Final = 0.5
MANY: Final = 40
RISING: Final = 0.1
"""Of so many values: where fewer rise, memory stands on stairs, as when a first save keeps what it took."""
STEP: Final = 0.5
"""Of the mean growth from one value to the next: what counts as a rise."""
FEWEST: Final = 10
BEGUN: Final = 0.25
"""Of the planned steps: before that a run still finds its shape."""


def check(case: Case) -> Iterator[Finding]:
    """A warning; an error where the run failed while memory was nearly used up."""
    name = next((one for one in ("memory_bytes", "hardware/process_memory_bytes") if case.history.has(one)), "")
    curve = Curve.of(case.history.get(name))
    if curve is None or len(curve) < FEWEST or curve.last_step < BEGUN * case.planned_steps:
        return
    parts = parts_of(curve, min(8, len(curve) - len(curve) // 5), skip=len(curve) // 5)
    first, last = float(parts.levels[0]), float(parts.levels[-1])
    grown, middle = last - first, float(np.interp((parts.steps[0] + parts.steps[-1]) / 2, parts.steps, parts.levels))
    if (
        _batch_grows(case, parts.growth)
        or grown < max(LEAST_PART * first, LEAST_BYTES)
        or parts.steadiness < STEADY
        or parts.largest_jump > ONE_JUMP
        or (len(curve) >= MANY and float((np.diff(curve.values) > STEP * grown / len(curve)).mean()) < RISING)
        or last - middle < STILL * (middle - first)
    ):
        return
    onset = parts_of(curve, min(24, len(curve) - 1), skip=1).began(curve.first_step)
    a_thousand = 1000 * grown / max(int(parts.steps[-1] - parts.steps[0]), 1)
    evidence = [
        Evidence(
            name,
            (int(parts.steps[0]), int(parts.steps[-1])),
            last,
            first,
            f"memory grew from {format.size(first)} to {format.size(last)} between steps {int(parts.steps[0]):,} and "
            f"{int(parts.steps[-1]):,}, in nearly every part of the way: {format.size(a_thousand)} in a thousand steps",
        ),
        *_left(case, a_thousand),
    ]
    yield Finding(
        "memory-leak",
        "warning",
        0.9 if grown > GRAVE_PART * first else 0.8,
        onset,
        f"memory grows by {format.size(a_thousand)} in a thousand steps and does not stop: something is kept that "
        "should be let go",
        tuple(evidence),
        remedies=(
            Remedy("keep numbers instead of tensors: a loss that is kept with its graph keeps every activation"),
            Remedy("look for lists, caches and hooks that grow with every step"),
        ),
    )


def _batch_grows(case: Case, grown: float) -> bool:
    """Whether batches grow as well, and not by far less than memory does, as their lengths do by chance."""
    tokens = Curve.of(case.history.get("tokens"))
    return tokens is not None and len(tokens) >= 16 and parts_of(tokens).growth > max(1.02, 1.0 + 0.3 * (grown - 1.0))


def _left(case: Case, a_thousand: float) -> Iterator[Evidence]:
    """When the memory of the machine is used up."""
    left = Curve.of(case.history.get("hardware/memory_available_bytes"))
    if left is None or a_thousand <= 0:
        return
    steps = 1000 * float(left.values[-1]) / a_thousand
    text = f"{format.size(float(left.values[-1]))} are left, which last for about {format.count(round(steps))} steps"
    metric = "hardware/memory_available_bytes"
    yield Evidence(metric, (left.first_step, left.last_step), float(left.values[-1]), None, text)
