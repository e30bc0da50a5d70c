"""decayed-too-early: the rate is near zero long before the end, while the loss was still falling.

Looks for: a rate at or below a fiftieth of its peak for the last fifth of the steps or more, after a stretch at a high
    rate in whose second half the loss still fell by more than its noise and a part of the whole descent; what follows
    at the low rate gains hardly anything. So does a schedule that ended at a tenth of its peak or less and stays there
    for two fifths of the steps. Half of the steps at less than a thousandth count, whatever the loss did.
Why it matters: the rest of the budget is spent at a rate that cannot learn. The usual reasons are a schedule that was
    laid out for fewer steps than there are (a scheduler that is stepped once for each micro-batch, or with each of
    several processes, ends so many times too early), and a horizon left from an earlier configuration.
Evidence: where the rate came down to half and to near nothing, what the loss gained before and after.
Remedy: let the schedule end where the run does.
False alarms: cosines and lines come down at the very end, and warm-up-stable-decay in its last part, all of them in
    less than a fifth of the steps. Rates that fall in stairs (step decay) may lie at a hundredth for a third of the
    run by plan: of these only less than a thousandth counts. A rate that was taken down in stairs because the loss
    stood still is a remark at most: the loss did not fall any more. Where the settings plan the stairs they did it.
    One rate for some epochs and a far lower one for the rest, as when a new head is trained before all, is a remark,
    but where evaluations stand still from there on though the loss was falling.
    Rates that a log rounds to few digits read 0 long before they are near it: of these nothing is said.
Source: own; Hoffmann et al. 2022, arXiv 2203.15556, figure A1: schedules as long as the run are best.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.curves import Curve, Phases, resolution
from trimtab.doctor.reading.planned import planned_schedule
from trimtab.events import Adjust
from trimtab.runs import format

NEAR_NOTHING: Final = 0.02
NEAR_NOTHING_OF_STAIRS: Final = 0.001
FLOOR: Final = 0.1
"""Of the peak, at which schedules usually end."""
SAME: Final = 1e-4
"""Of the peak: rates that differ by less are one."""
ENDED: Final = 0.4
"""Of the steps, after the end of the schedule."""
FEWEST, MANY, MOST = 8, 24, 0.6
"""Losses; and how many let a shorter rest be told than one of most of the run."""
IDLE: Final = 0.2
"""Of the steps, at a rate of nearly nothing."""
FELL: Final = 0.02
"""Of the whole descent, in the second half of the stretch at a high rate: it was still falling."""
ABSURD: Final = 0.5
"""Of the steps, at less than a thousandth of the peak: no schedule means that, whatever the loss did before."""
SOON: Final = 0.75
"""Of the steps, after the end of a schedule: it is over so soon that what is still gained is but a part of what the
rest could give."""
STANDS: Final = 0.01
"""Of the whole descent: evaluations that gain less say that nothing is learned."""
GAINED: Final = 0.1
"""Of the whole descent: a rest that gains more is not idle."""


def check(case: Case) -> Iterator[Finding]:
    """A warning; the longer the idle rest, the surer."""
    loss, rates = Curve.of(case.loss()), Curve.of(case.history.get("learning_rate"))
    if loss is None or rates is None or len(loss) < FEWEST or len(rates) < FEWEST:
        return
    phases = Phases.of(case.history.get("learning_rate"), loss.first_step, loss.last_step)
    if not phases.peak > 0:
        return
    ended = 0.0 if _in_stairs(rates) else _ended_at(rates) / phases.peak
    low = NEAR_NOTHING_OF_STAIRS if _in_stairs(rates) else max(NEAR_NOTHING, ended)
    alive = np.flatnonzero(rates.values > low * phases.peak)
    if not len(alive) or alive[-1] == len(rates) - 1:
        return
    if rates.values[-1] == 0.0 and 0.5 * _kept_digit(rates) > low * phases.peak:
        return  # what reads as 0 may be far more
    dead_from = int(rates.steps[int(alive[-1]) + 1])
    whole = max(case.planned_steps, loss.last_step) - loss.first_step + 1
    idle = loss.last_step - dead_from + 1
    if idle < (IDLE if len(loss) >= MANY and len(rates) >= MANY // 2 else MOST) * whole:
        return
    half = phases.high_until
    begin = min(phases.peak_from, half)
    error = loss.error(max(3, len(loss) // 40))
    fell = loss.progress((begin + half) / 2, half) if half - begin >= 8 else loss.start - loss.level(begin, half)
    # Of a loss that still falls the level before is that of the steps at the full rate.
    near = max(8, 0.05 * whole)
    level = min(loss.level(dead_from - near, dead_from), loss.level(dead_from, dead_from + near))
    gained = level - loss.end
    judged = _fell_in_evaluations(case, (begin + half) / 2, half)
    still_falling = fell > max(FELL * loss.descent, 3 * error) or judged > FELL * loss.descent
    absurd = idle >= ABSURD * whole and (float(rates.values[-1]) <= NEAR_NOTHING_OF_STAIRS * phases.peak or ended > 0)
    decided = _decided(case)
    if not (still_falling or (absurd and not decided)):
        return
    if gained > max(GAINED * loss.descent, 3 * error) and not (ended > 0 and idle >= SOON * whole):
        return
    if loss.end > loss.start:
        return
    part = idle / whole
    falls = int((np.diff(rates.values) < -1e-6 * phases.peak).sum())
    planned = planned_schedule(case) is not None and not decided
    # As one that lowers the rate at plateaus does.
    cut = not still_falling and _in_stairs(rates) and falls >= 2 and not planned
    staged = not planned and _two_phases(rates) and not (still_falling and _stands(case, dead_from, loss.descent))
    yield Finding(
        "decayed-too-early",
        "info" if cut or staged else "warning",
        0.5 if staged else float(np.clip(0.7 + 0.4 * (part - IDLE), 0.7, 0.95)),
        half,
        f"the learning rate is {'at its lowest' if ended > NEAR_NOTHING else 'near nothing'} from step {dead_from:,} "
        f"on, for {part:.0%} of the run"
        + (", and the loss was still falling when it decayed" if still_falling else ""),
        (
            Evidence(
                "learning_rate",
                (dead_from, rates.last_step),
                float(rates.between(dead_from, rates.last_step).values.max()),  # type: ignore[union-attr]
                phases.peak,
                f"the rate fell to half of its peak ({phases.peak:.2g}) at step {half:,} and to less than "
                f"{low:g} of it at step {dead_from:,} of {loss.last_step:,}",
            ),
            Evidence(
                "train/loss",
                (int(begin), half),
                max(fell, judged),
                FELL * loss.descent,
                f"the loss fell by {format.decimal(max(fell, judged, 0.0))} in the last part at a high rate"
                + (": it was not done" if still_falling else ""),
            ),
            Evidence(
                "train/loss",
                (dead_from, loss.last_step),
                gained,
                None,
                f"it gained {format.decimal(max(gained, 0.0))} of {format.decimal(loss.descent)} in the "
                f"{format.count(idle)} steps after the rate had come down",
            ),
        ),
        remedies=tuple(_remedies(case)),
    )


def _decided(case: Case) -> bool:
    """Whether a controller lowered the rate."""
    taken = (one.decision for one in case.history.decisions if one.outcome == "taken")
    return any(isinstance(one, Adjust) and one.name == "learning_rate" for one in taken)


def _kept_digit(rates: Curve) -> float:
    """The last digit of rates that a log rounds to three or four; 0 where more were kept, or fewer are all there is."""
    digit = resolution(rates.values)
    return digit if digit < 0.01 else 0.0


def _ended_at(rates: Curve) -> float:
    """The rate at which a schedule that fell smoothly to a tenth or less stays for two fifths of the steps and more, to
    the end: it is over, and its end was to be that of the run. 0 where it does not."""
    peak, last = float(rates.values.max()), float(rates.values[-1])
    if not 0.0 < last <= FLOOR * peak:
        return 0.0
    off = np.flatnonzero(np.abs(rates.values - last) > SAME * peak)
    idle = rates.last_step - int(rates.steps[off[-1]]) if len(off) else 0
    return last + SAME * peak if idle >= ENDED * (rates.last_step - rates.first_step) else 0.0


def _fell_in_evaluations(case: Case, first: float, last: float) -> float:
    """How far the validation loss fell between two steps, in each evaluation; 0 where it did not, or is not known."""
    curve = Curve.of(case.validation_loss())
    part = None if curve is None else curve.between(curve.first_step, last)
    if curve is None or part is None or len(part) < 3 or (np.diff(part.values) >= 0).any():
        return 0.0
    at = np.interp([first, last], curve.steps, curve.values)
    return float(at[0] - at[1])


def _stands(case: Case, dead_from: int, descent: float) -> bool:
    """Whether evaluations gained next to nothing from there on, as no second phase is meant to."""
    curve = Curve.of(case.validation_loss())
    rest = None if curve is None else curve.between(dead_from, case.history.last_step)
    return rest is not None and len(rest) >= 4 and 0.0 <= rest.values[0] - rest.values[-1] < STANDS * descent


def _in_stairs(rates: Curve) -> bool:
    """Whether the rate, once at its height, is one of a few values for most of the steps, and jumps between them."""
    highest = float(rates.values.max())
    begin = int((rates.values > (1.0 - 1e-6) * highest).argmax())
    rates = Curve(rates.steps[begin:], rates.values[begin:])
    changes = np.abs(np.diff(rates.values)) > 1e-6 * highest
    if len(rates) < MANY and changes[: int(changes.sum())].all():
        return False  # it fell in the first rows, and stays: in so few a smooth fall jumps, too
    return 2 <= int(changes.sum()) <= max(8, 0.02 * len(rates)) and len(np.unique(np.round(rates.values, 12))) <= 12


def _two_phases(rates: Curve) -> bool:
    """Whether the rate was one value for some rows and another for the rest: it was set, and is no schedule's."""
    changes = np.flatnonzero(np.abs(np.diff(rates.values)) > SAME * rates.values.max())
    return len(changes) == 1 and int(changes[0]) >= 1


def _remedies(case: Case) -> Iterator[Remedy]:
    if case.target == "trimtab":
        yield Remedy("a cosine over the whole run", "trimtab", {"schedule.name": "cosine"})
    elif case.target == "huggingface":
        yield Remedy(
            "lay the schedule out for all steps: num_training_steps counts updates, not micro-batches, and the "
            "scheduler is stepped once for each"
        )
    else:
        yield Remedy(
            "lay the schedule out for the steps that there are, and step it once for each update, not for each "
            "micro-batch or process"
        )
