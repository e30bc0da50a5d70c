"""schedule-mismatch: the rate that was applied is not the one that the configuration describes.

Looks for: of a run of trimtab, each step's rate held against the schedule in its settings, with the factors that
    controllers put on it: more than 5 % off in a tenth of the steps. Of another trainer's log: rates that fit no
    schedule of the name and length that it prints (linear, cosine, constant); a line or half a cosine that would come
    down only a quarter of the run or more after its last step, though the run was done; and half a cosine that was
    gone on with beyond its end, so that the rate rises again as it fell. Or a warm-up that takes half of the run and
    more: in even stairs, or of a run that is over and was planned with so many steps.
Why it matters: what was set is not what was tried, so that every conclusion from the run is about something else.
Evidence: the first and the largest difference; whether one schedule is the other at another pace (stepped several times
    for each update, or once for several), or at another height.
Remedy: step the schedule once for each update, and lay it out for the number of updates.
False alarms: controllers' factors are in the journal and counted in; a rollback or a resume with other settings begins
    the comparison anew; another optimizer has its own rate and is not judged. Where other trainers print no schedule,
    or one that comes down sooner (decayed-too-early), nothing is said but of such lines and cosines. Of a run that was
    stopped before its end, or may have been, they are a remark, and so are cosines that come again and again, and a
    warm-up of half of a short run; so is a line that ends below a third of the peak, and what has its end told. A
    setting counts where its name speaks of the learning rate. Cosines that jump up are planned. Rates that a log rounds
    go up in stairs of its last digit.
Source: own; the pace of schedulers under accumulation and in several processes is a usual mistake of loops.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.declared import OFF as NAMED_OFF
from trimtab.doctor.reading.declared import departure
from trimtab.doctor.reading.laid_out import FEWEST, Fall, even_stairs, half_cosine, is_done, straight, warms_up_until
from trimtab.doctor.reading.plan_kept import OFF, difference, has_plan

CODE: Final = "schedule-mismatch"
LATE: Final = 1.25
"""Of the run: a line that ends no later was laid out for it."""
CUT, BEYOND = 0.85, 1.1
"""Half waves: what is planned to end at the bottom of one is not cut off so long before, nor gone on with so far."""
ONCE: Final = 2.25
"""Half waves: more of them are cycles, which many plan."""
FAR: Final = 20
"""Runs: a line that ends beyond so many is as good as constant."""
LOW: Final = 0.32
"""Of the peak: where a line may be told to end."""
LONG, MOST = 0.5, 0.8
"""Of a run that is done: a warm-up seldom takes so much, and none takes the most."""
LAY_OUT: Final = Remedy(
    "lay the schedule out for the number of updates (steps divided by accumulation and processes), so that it ends "
    "where the run does"
)
COUNT_UPDATES: Final = Remedy("step the schedule once for each update, and count the warm-up in updates")


def check(case: Case) -> Iterator[Finding]:
    """A warning; a remark on another trainer's run that may have been stopped."""
    rates = Curve.of(case.history.get("learning_rate"))
    if rates is None:
        return
    if has_plan(case):
        yield from _beside_plan(case, rates)
    elif case.target != "trimtab":
        named = list(_beside_name(case, rates))
        yield from named
        if not named and len(rates) >= FEWEST:
            yield from (
                *_line(case, rates),
                *_cosine(case, rates),
                *(list(_stairs(case, rates)) or _warmup(case, rates)),
            )


def _beside_plan(case: Case, rates: Curve) -> Iterator[Finding]:
    """Where the settings are known."""
    found = difference(case, rates)
    if found is None:
        return
    told = (
        f"step {found.step:,} was made at {found.applied:.3g}, where schedule.name = {case.setting('schedule.name')} "
        f"plans {found.planned:.3g}; {found.share:.0%} of the steps are more than {OFF:.0%} off"
    )
    remedy = (
        "step the schedule once for each update, and lay it out for the number of updates: look for what else sets the "
        "rate"
    )
    yield Finding(
        CODE,
        "warning",
        0.95,
        found.onset,
        f"the rate is not that of the settings from step {found.onset:,} on" + (f": {found.how}" if found.how else ""),
        (Evidence("learning_rate", (found.onset, rates.last_step), found.applied, found.planned, told),),
        remedies=(Remedy(remedy),),
    )


def _beside_name(case: Case, rates: Curve) -> Iterator[Finding]:
    """Where another trainer's log names the schedule."""
    found = departure(case, rates)
    if found is None:
        return
    steps = case.number("planned_steps")
    plan = f"a {found.name} schedule" + (f" of {steps:,.0f} steps" if steps else "")
    told = (
        f"the rate at step {found.step:,} is {found.applied:.3g}, where {plan} has {found.planned:.3g}; "
        f"{found.share:.0%} of the rates are more than {NAMED_OFF:.0%} of the full rate off"
    )
    yield Finding(
        CODE,
        "warning",
        0.9,
        found.onset,
        f"the log names {plan}, and the rates do not follow one from step {found.onset:,} on",
        (Evidence("learning_rate", (found.onset, rates.last_step), found.applied, found.planned, told),),
        remedies=(LAY_OUT,),
    )


def _cosine(case: Case, rates: Curve) -> Iterator[Finding]:
    """Half a cosine that was cut short, or that was gone on with beyond its end, where the rate rises again."""
    fall = half_cosine(rates)
    if fall is None:
        return
    length = fall.end - fall.begin
    halves, end = (rates.last_step - fall.begin) / length, int(fall.begin + round(length))
    beyond, once = halves > BEYOND, halves <= ONCE
    if not beyond and halves >= CUT:
        return
    done = beyond or is_done(case)
    grave = (once if beyond else done) and not _is_meant(case)
    yield Finding(
        CODE,
        "warning" if grave else "info",
        (0.75 if beyond else 0.65) if grave else 0.4,
        end if beyond else rates.last_step,
        f"the rate is half a cosine that comes down at step {end:,}, and "
        + (
            "rises again from there: the schedule was stepped beyond its end"
            if beyond and once
            else "rises and falls again: a schedule that comes again, or one that was stepped beyond its end"
            if beyond
            else "the run is over long before"
        )
        + ("" if done else ": was it stopped, or laid out for more steps than there are?"),
        (_ended_high(fall, rates, fall.last, 0.1),),
        remedies=(LAY_OUT,),
    )


def _line(case: Case, rates: Curve) -> Iterator[Finding]:
    """A straight fall to nothing that ends far beyond the run."""
    fall, whole = straight(rates), rates.last_step - rates.first_step
    if fall is None or not rates.last_step + (LATE - 1.0) * whole <= fall.end <= FAR * rates.last_step:
        return
    done = is_done(case)
    grave = done and fall.last > LOW and not _is_meant(case)
    yield Finding(
        CODE,
        "warning" if grave else "info",
        0.7 if grave else 0.5,
        int(max(fall.begin, rates.first_step)),
        f"the rate falls in a line that would reach zero at step {round(fall.end):,}, "
        f"{fall.end / rates.last_step:.1f} times as far as the run"
        + (" was planned" if done else " came: was it stopped, or laid out for more steps than there are?"),
        (_ended_high(fall, rates, float(rates.values[-1]), 0.0),),
        remedies=(LAY_OUT,),
    )


def _is_meant(case: Case) -> bool:
    """Whether the settings tell where a schedule ends, or that it has a course of its own."""
    return any(case.fact("schedule", told) for told in ("length", "minimum", "has_own_course"))


def _stairs(case: Case, rates: Curve) -> Iterator[Finding]:
    """A warm-up in even stairs that takes most of a run: it counts epochs, or what else is not an update."""
    stairs = even_stairs(rates)
    if stairs is None:
        return
    until = (stairs.end - rates.first_step) / max(rates.last_step - rates.first_step, 1)
    if until < LONG:
        return
    done = is_done(case)
    grave = done and until >= MOST
    told = f"the rate stood at {stairs.number} levels, each {stairs.height:.0%} of the highest above the last"
    yield Finding(
        CODE,
        "warning" if grave else "info",
        0.75 if grave else 0.5,
        rates.first_step,
        f"the warm-up goes up in {stairs.number} even stairs to step {stairs.end:,}, {until:.0%} of the "
        + ("run" if done else "log")
        + ": it counts epochs, or something else that is not an update",
        (Evidence("learning_rate", (rates.first_step, stairs.end), until, LONG, told),),
        remedies=(COUNT_UPDATES,),
    )


def _warmup(case: Case, rates: Curve) -> Iterator[Finding]:
    """The same without stairs, of a run whose planned steps are done: a row may stand for many."""
    end = warms_up_until(rates)
    if end is None or case.number("planned_steps") is None or not is_done(case):
        return
    until = end / rates.last_step
    if until <= LONG:
        return
    told = f"the rate rose to step {end:,} of {rates.last_step:,}, and stood there"
    yield Finding(
        CODE,
        "warning",
        0.65,
        rates.first_step,
        f"the warm-up takes {until:.0%} of the planned steps: it counts epochs, or what else is not an update",
        (Evidence("learning_rate", (rates.first_step, end), until, LONG, told),),
        remedies=(COUNT_UPDATES,),
    )


def _ended_high(fall: Fall, rates: Curve, observed: float, expected: float) -> Evidence:
    told = f"the last step was made at {fall.last:.0%} of the highest rate"
    return Evidence("learning_rate", (fall.since, rates.last_step), observed, expected, told)
