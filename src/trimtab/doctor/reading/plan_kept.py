"""The rates that were applied beside those that the settings plan, with the factors that controllers put on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.case import Case
from trimtab.doctor.reading.curves import Curve, Floats
from trimtab.doctor.reading.medians import median
from trimtab.doctor.reading.planned import planned_factor
from trimtab.doctor.remedies import learning_rate_in_use
from trimtab.events import Adjust

OFF: Final = 0.05
PART: Final = 0.1
"""Of the steps that are off."""
SETTLES: Final = 12
"""Steps around a change of factor that are not judged: it holds from the next boundary on."""
PACES: Final = (0.125, 0.25, 0.5, 2.0, 3.0, 4.0, 8.0, 16.0)
MOST: Final = 1024
"""Steps that are held against the plan, evenly over the run."""
FEWEST: Final = 24
LEAST: Final = 1e-3
"""Of the full rate: what is planned below that is not judged."""


@final
@dataclass(frozen=True, slots=True)
class Difference:
    """Where a run left its plan."""

    onset: int
    step: int
    """Where it is largest."""
    applied: float
    planned: float
    share: float
    """Of the steps that were judged, that are off."""
    how: str
    """The simplest change of the plan that gives what was applied; "" where none does."""


def has_plan(case: Case) -> bool:
    """Whether the rate of each step is known from the settings; that of an optimizer that is switched to is not."""
    if not case.config or planned_factor(case) is None or learning_rate_in_use(case) is None:
        return False
    return not any(name.startswith("optimizer_switch.") and value is not None for name, value in case.config.items())


def difference(case: Case, rates: Curve) -> Difference | None:
    """How the rates differ from the plan in a tenth of the steps and more; None where they do not."""
    factor, full = planned_factor(case), learning_rate_in_use(case)
    begin = max([start.step for start in case.history.starts] + [back.step for back in case.history.rollbacks.made])
    part = rates.between(begin + 1, rates.last_step)
    if len(rates) < FEWEST or part is None or len(part) < FEWEST or factor is None or full is None:
        return None
    factors = factor.along(part.steps)
    if len(part) > MOST:
        few = np.linspace(0, len(part) - 1, MOST).astype(int)
        part, factors = Curve(part.steps[few], part.values[few]), factors[few]
    put, is_settling = _factors(case, part)

    expected = full * put * factors
    judged = (expected > LEAST * full) & ~is_settling
    if begin > 0:  # what controllers had put before an earlier attempt died is in no journal of this branch
        judged &= part.steps > begin + SETTLES
    off = judged & (_distance(part.values, expected) > OFF)
    if judged.sum() < FEWEST or off.sum() < max(PART * judged.sum(), 8):
        return None
    ratios = part.values[judged] / np.maximum(expected[judged], 1e-30)
    usual, how = median(ratios), ""
    if usual > 0 and _distance(ratios, np.full(len(ratios), usual)).max() < OFF:
        how = f"it is {usual:.3g} times as high all along"
    else:
        for pace in PACES:
            other = full * put * np.array([factor(max(1, round(pace * step))) for step in part.steps.tolist()])
            there = judged & (other > LEAST * full)
            if there.sum() >= FEWEST // 2 and (_distance(part.values, other) < OFF)[there].mean() > 0.9:
                how = f"the schedule goes {pace:g} times as fast as the updates"
                break
    at = int(np.argmax(np.where(off, np.abs(part.values - expected), -1.0)))
    return Difference(
        int(part.steps[int(np.flatnonzero(off)[0])]),
        int(part.steps[at]),
        float(part.values[at]),
        float(expected[at]),
        float(off.sum() / judged.sum()),
        how,
    )


def _distance(values: Floats, expected: Floats) -> Floats:
    distance: Floats = np.abs(np.log(np.maximum(values, 1e-30) / np.maximum(expected, 1e-30)))
    return distance


def _factors(case: Case, part: Curve) -> tuple[Floats, NDArray[np.bool_]]:
    """What controllers put on the rate at each step, and where that has just changed."""
    put, settling = np.ones(len(part)), np.zeros(len(part), np.bool_)
    newest: dict[str, float] = {}
    for taken in sorted(case.history.decisions, key=lambda one: one.step):
        decision = taken.decision
        if not isinstance(decision, Adjust) or decision.name != "learning_rate" or taken.outcome != "taken":
            continue
        newest[taken.controller] = decision.value
        put[part.steps > taken.step] = float(np.prod(list(newest.values())))
        settling |= np.abs(part.steps - taken.step) <= SETTLES
    return put, settling
