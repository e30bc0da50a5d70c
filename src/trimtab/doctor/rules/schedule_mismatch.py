"""schedule-mismatch: the rate that was applied is not the one that the configuration describes.

Looks for: of a run of trimtab, each step's rate held against the schedule in its settings, with the factors that
    controllers put on it: more than 5 % off in a tenth of the steps. Of another trainer's log: a line or half a cosine
    that would come down only a quarter of the run or more after its last step, though the run was done; and half a
    cosine that was gone on with beyond its end, so that the rate rises again as it fell. Or a warm-up in even stairs
    that takes half of the run and more.
Why it matters: what was set is not what was tried, so that every conclusion from the run is about something else.
Evidence: the first and the largest difference; whether one schedule is the other at another pace (stepped several times
    for each update, or once for several), or at another height.
Remedy: step the schedule once for each update, and lay it out for the number of updates.
False alarms: controllers' factors are in the journal and counted in; a rollback or a resume with other settings begins
    the comparison anew; another optimizer has its own rate and is not judged. Schedules of other trainers are not
    known: but for such lines and cosines nothing is said. Of a run that was stopped before its end they are a remark;
    one whose last row is both an evaluation and a round step is taken for done. Cosines that come again and again and
    end low are planned, and so are those that jump up.
Source: own; the pace of schedulers under accumulation and in several processes is a usual mistake of loops.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.curves import Curve
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
FEWEST: Final = 12
"""Rates: a cosine or a line is drawn by few of them."""
LATE: Final = 1.25
FAST, SLOW, APART = 12.0, 1 / 16, 0.005
"""Half waves in a run, at most, at least, and between two that are tried."""
OF_FALL: Final = 0.1
"""Of all that the rate fell, that a cosine may be off."""
LONG: Final = 0.5
"""Of a run that is done, which no warm-up takes."""
STAIRS, EVEN = 4, 0.05
"""The fewest of a warm-up, and of their height how far each may be off."""
RARE: Final = 20
"""Rows, of which one ends where a plan would."""
FLOORS: Final = (0.0, 0.02, 0.05, 0.1)
"""Of the peak, that a cosine usually ends at."""
Floats = NDArray[np.float64]


def check(case: Case) -> Iterator[Finding]:
    """A warning."""
    rates = Curve.of(case.history.get("learning_rate"))
    if rates is None or len(rates) < FEWEST:
        return
    factor, full = planned_factor(case), learning_rate_in_use(case)
    if case.config and factor is not None and full is not None and not _is_switched(case):
        if len(rates) >= 24:
            yield from _beside_plan(case, rates, factor, full)
    elif case.target != "trimtab":
        yield from _line(case, rates)
        yield from _cosine(case, rates)
        yield from _stairs(case, rates)


def _is_switched(case: Case) -> bool:
    return any(name.startswith("optimizer_switch.") and value is not None for name, value in case.config.items())


def _beside_plan(case: Case, rates: Curve, factor: Callable[[int], float], full: float) -> Iterator[Finding]:
    begin = max([start.step for start in case.history.starts] + [back.step for back in case.history.rollbacks.made])
    part = rates.between(begin + 1, rates.last_step)
    if part is None or len(part) < 24:
        return
    if len(part) > MOST:
        few = np.linspace(0, len(part) - 1, MOST).astype(int)
        part = Curve(part.steps[few], part.values[few])
    planned = full * np.array([factor(step) for step in part.steps.tolist()])
    put, is_settling = _factors(case, part)
    expected = planned * put
    judged = (expected > 1e-3 * full) & ~is_settling
    if begin > 0:  # what controllers had put before an earlier attempt died is in no journal of this branch
        judged &= part.steps > begin + SETTLES
    if judged.sum() < 24:
        return
    off = np.abs(np.log(np.maximum(part.values, 1e-30) / np.maximum(expected, 1e-30))) > OFF
    off &= judged
    if off.sum() < max(PART * judged.sum(), 8):
        return
    first = int(np.flatnonzero(off)[0])
    at = int(np.argmax(np.where(off, np.abs(part.values - expected), -1.0)))
    how = _how(part, factor, full, put, judged)
    onset = int(part.steps[first])
    yield Finding(
        "schedule-mismatch",
        "warning",
        0.95,
        onset,
        f"the rate is not that of the settings from step {onset:,} on" + (f": {how}" if how else ""),
        (
            Evidence(
                "learning_rate",
                (onset, part.last_step),
                float(part.values[at]),
                float(expected[at]),
                f"step {int(part.steps[at]):,} was made at {part.values[at]:.3g}, where schedule.name = "
                f"{case.setting('schedule.name')} plans {expected[at]:.3g}; {off.sum() / judged.sum():.0%} of the "
                f"steps are more than {OFF:.0%} off",
            ),
        ),
        remedies=(
            Remedy(
                "step the schedule once for each update, and lay it out for the number of updates: look for what else "
                "sets the rate"
            ),
        ),
    )


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


def _how(part: Curve, factor: Callable[[int], float], full: float, put: Floats, judged: NDArray[np.bool_]) -> str:
    """The simplest change of the plan that gives what was applied; "" where none does."""
    planned = full * put * np.array([factor(step) for step in part.steps.tolist()])
    ratios = part.values[judged] / np.maximum(planned[judged], 1e-30)
    usual = float(np.median(ratios))
    if usual > 0 and np.abs(np.log(np.maximum(ratios, 1e-30) / usual)).max() < OFF:
        return f"it is {usual:.3g} times as high all along"
    for pace in PACES:
        other = full * put * np.array([factor(max(1, round(pace * step))) for step in part.steps.tolist()])
        there = judged & (other > 1e-3 * full)
        near = np.abs(np.log(np.maximum(part.values, 1e-30) / np.maximum(other, 1e-30))) < OFF
        if there.sum() >= 12 and near[there].mean() > 0.9:
            return f"the schedule goes {pace:g} times as fast as the updates"
    return ""


def _is_done(case: Case) -> bool:
    """Whether a log is that of a whole run: its planned steps are done, or it closes with an evaluation of its own that
    is the best of all, as no run does that was stopped or died."""
    planned, validation = case.number("planned_steps"), Curve.of(case.validation_loss())
    if planned is not None:
        return case.history.last_step >= planned
    if validation is None or len(validation) < 5 or validation.last_step < case.history.last_step:
        return False
    gaps = np.diff(validation.steps)
    if _ends_as_planned(case, validation):
        return True
    lowest = float(validation.values.min())
    is_best = float(validation.values[-1]) <= lowest + 0.02 * float(validation.values.max() - lowest)
    return is_best and int(gaps[-1]) < int(np.median(gaps))


def _ends_as_planned(case: Case, validation: Curve) -> bool:
    """Whether the last row has an evaluation and a round number, both of which few rows have: one that was stopped or
    died ends anywhere."""
    last, loss = case.history.last_step, Curve.of(case.loss())
    tens = next((ten for ten in (1000, 500, 200, 100) if last % ten == 0), None)
    if tens is None or loss is None or len(loss) < 2 or len(validation) < 5:
        return False
    every, between = int(np.median(np.diff(loss.steps))), int(np.median(np.diff(validation.steps)))
    return math.lcm(max(between, 1), tens) // max(every, 1) >= RARE


def _cosine(case: Case, rates: Curve) -> Iterator[Finding]:
    """Half a cosine that was cut short, or that was gone on with beyond its end, where the rate rises again."""
    early = rates.values[: max(2, len(rates) // 2)]  # one that rises again may come back to its peak
    peak = float(early.max())
    fall = rates.between(int(rates.steps[int(np.argmax(early))]), rates.last_step)
    if fall is None or len(fall) < FEWEST // 2 + 2 or peak <= 0 or float(fall.values[-1]) < 0.25 * peak:
        return
    fitted = _waves(fall, peak)
    if fitted is None:
        return
    first, length = fitted
    whole, last = fall.last_step - first, float(fall.values[-1]) / peak
    beyond = whole / length > 1.25 and (whole / length <= 2.25 or last > 0.5)  # waves that are planned end low
    if not (beyond or length > LATE * whole) or (length > whole and len(fall) < FEWEST):
        return
    end = int(first + round(length))
    done = beyond or _is_done(case)
    yield Finding(
        "schedule-mismatch",
        "warning" if done else "info",
        0.75 if beyond else 0.65 if done else 0.4,
        end if beyond else fall.last_step,
        f"the rate is half a cosine that comes down at step {end:,}, and "
        + (
            "rises again from there: the schedule was stepped beyond its end"
            if beyond
            else "the run is over long before"
        )
        + ("" if done else ": was it stopped, or laid out for more steps than there are?"),
        (
            Evidence(
                "learning_rate",
                (int(first), fall.last_step),
                last,
                0.1,
                f"the last step was made at {last:.0%} of the highest rate",
            ),
        ),
        remedies=(
            Remedy(
                "lay the schedule out for the number of updates (steps divided by accumulation and processes), so that "
                "it ends where the run does"
            ),
        ),
    )


def _waves(fall: Curve, peak: float) -> tuple[float, float] | None:
    """Where the half wave of a cosine began that the rates follow from their peak on, and its length."""
    if float(fall.values.min()) >= peak * (1.0 - 1e-3):
        return None
    few = np.unique(np.linspace(0, len(fall) - 1, 96).astype(int))  # of a smooth curve
    between = int(np.median(np.diff(fall.steps)))  # of a log of some steps only the top may lie between two values
    steps, values = fall.steps[few], fall.values[few] / peak
    allowed = min(0.01, OF_FALL * (1.0 - float(values.min())))
    best: tuple[float, float, float] | None = None
    offsets = np.linspace(-(between // 2), between - 1, 24 if len(few) < 48 else 6)
    for begin in fall.first_step - np.unique(offsets.astype(int)):
        halves = np.concatenate([np.geomspace(SLOW, 0.3, 200), np.arange(0.3, min(FAST, len(few)), APART)])
        waves = 0.5 * (1 + np.cos(np.pi * np.outer(halves, (steps - begin) / max(fall.last_step - begin, 1))))
        for floor in FLOORS:
            errors = np.abs(floor + (1 - floor) * waves - values).max(axis=1)
            at = int(np.argmin(errors))
            one = float(errors[at]), float(begin), float((fall.last_step - begin) / halves[at])
            best = min(best or one, one)
    assert best is not None
    return best[1:] if best[0] <= allowed else None


def _stairs(case: Case, rates: Curve) -> Iterator[Finding]:
    """A warm-up in even stairs that takes most of a run: it counts epochs, or what else is not an update."""
    peak = float(rates.values.max())
    top = int(np.argmax(rates.values >= (1 - 1e-3) * peak))
    rise = rates.values[: top + 1] / max(peak, 1e-300)
    levels = np.unique(np.round(rise, 3))
    until = (int(rates.steps[top]) - rates.first_step) / max(rates.last_step - rates.first_step, 1)
    if until < LONG or len(levels) < STAIRS or (np.diff(rise) < -1e-3).any() or len(levels) > 0.7 * len(rise):
        return
    heights = np.diff(levels)
    if heights.min() < (1 - EVEN) * heights.max() - 2e-3:
        return
    done, end = _is_done(case), int(rates.steps[top])
    yield Finding(
        "schedule-mismatch",
        "warning" if done else "info",
        0.75 if done else 0.5,
        rates.first_step,
        f"the warm-up goes up in {len(levels)} even stairs to step {end:,}, {until:.0%} of the "
        + ("run" if done else "log")
        + ": it counts epochs, or something else that is not an update",
        (
            Evidence(
                "learning_rate",
                (rates.first_step, end),
                until,
                LONG,
                f"the rate stood at {len(levels)} levels, each {heights.mean():.0%} of the highest above the last",
            ),
        ),
        remedies=(Remedy("step the schedule once for each update, and count the warm-up in updates"),),
    )


def _line(case: Case, rates: Curve) -> Iterator[Finding]:
    """A straight fall to nothing that ends far beyond the run."""
    done = _is_done(case)
    late = rates.between(rates.first_step + 0.4 * (rates.last_step - rates.first_step), rates.last_step)
    peak = float(rates.values.max())
    if late is None or len(late) < FEWEST // 2 + 1 or peak <= 0:
        return
    slope, height = np.polyfit(late.steps, late.values, 1)
    if slope >= 0 or np.abs(height + slope * late.steps - late.values).max() > 2e-3 * peak:
        return
    whole = rates.last_step - rates.first_step
    end = -height / slope
    top = (peak - height) / slope  # where the line leaves the peak
    straight = top <= rates.first_step + 0.25 * whole
    if not straight or end < rates.last_step + (LATE - 1.0) * whole or end > 20 * rates.last_step:
        return
    times = end / rates.last_step
    yield Finding(
        "schedule-mismatch",
        "warning" if done else "info",
        0.7 if done else 0.5,
        int(max(top, rates.first_step)),
        f"the rate falls in a line that would reach zero at step {round(end):,}, {times:.1f} times as far as the run"
        + (" was planned" if done else " came: was it stopped, or laid out for more steps than there are?"),
        (
            Evidence(
                "learning_rate",
                (late.first_step, late.last_step),
                float(late.values[-1]),
                0.0,
                f"the last step was made at {late.values[-1] / peak:.0%} of the highest rate",
            ),
        ),
        remedies=(
            Remedy(
                "lay the schedule out for the number of updates (steps divided by accumulation and processes), so that "
                "it ends where the run does"
            ),
        ),
    )
