"""throughput-decay: steps take longer and longer.

Looks for: seconds of a step, for each token where their number changes, that grow from part to part of the run, or what
    is done in a second (tokens, samples, images), which falls: the
    quickest fiftieth of eight equal parts grows by three tenths or more, nearly every part lies above those before it
    (Kendall's tau of 0.9; of the medians 0.7), and no single jump makes most of it. The quickest steps are those that
    nothing disturbed: other programs on the machine move the rest. Where the wait for data makes most of the growth,
    and grows as steadily itself, medians are enough: what others do lengthens all parts of a step.
Why it matters: what grows with the steps done goes on growing; the second half of a run then takes far longer than the
    first. The usual reasons are a list that is kept and gone through, a graph that is never let go, a file that is read
    from its start each time, a device that grows hot.
Evidence: the first and the last part, how steadily the others lie between, and which part of a step it is that grows,
    where that was measured: waiting for data, forward, backward, logging; memory that grows with it, clocks that are
    held down.
Remedy: find what grows (`profile.steps`, or py-spy on the process); detach what is kept for logging.
    In a log whose values are few, or means over many steps, medians are enough, too, where nearly every value lies
    above those before it (tau of 0.65, by which chance is out of the question) and the growth is a fifth.
False alarms: a batch that grows by plan is counted out by its tokens; layers that are unfrozen by and by, or another
    optimizer, make steps longer by plan, and are not judged; nor is a log whose samples, answers, episodes or pictures
    grow, or what was read up to a step ever faster, as a column of it tells. Remarks are a growth that fewer than 18
    values tell, which count no tokens, one jump to another level, as when another program begins, or a rise to twice as
    much that is over, a growth beside a load that is above the cores and grows with it, and one of steps that mostly
    wait for data from the start: those are input-bound.
Source: own; Mann 1945 for the trend test.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy, Withheld
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.pace import (
    FEWEST,
    FEWEST_MEANS,
    FEWEST_SURE,
    GROWN,
    MEDIANS_STEADY,
    ONE_JUMP,
    STEADY,
    fewer_tokens,
    grows_steadily,
    has_more_to_do,
    seconds,
    stays_slower,
    waits_from_the_start,
    waits_longer,
)
from trimtab.doctor.reading.trends import Parts, parts_of
from trimtab.runs import format

QUICKEST: Final = 0.02
"""Of the steps of a part: those that nothing disturbed."""
_PARTS: Final = {
    "data_seconds": "waiting for data",
    "time/forward_seconds": "the forward pass",
    "time/backward_seconds": "the backward pass",
    "time/accumulate_seconds": "forward and backward",
    "time/optimizer_seconds": "the optimizer",
    "time/update_seconds": "the update",
    "time/logging_seconds": "logging",
    "time/probe_seconds": "probes",
}


def check(case: Case) -> Iterator[Finding | Withheld]:
    """A warning for a steady growth, a remark for one jump."""
    curve = seconds(case)
    if curve is None:
        yield Withheld("throughput-decay", ("step_seconds or tokens_per_second",))
        return
    if len(curve) < FEWEST_MEANS or _grows_by_plan(case) or has_more_to_do(case):
        return
    few = len(curve) < FEWEST_SURE and not fewer_tokens(case)
    skip = max(3 if len(curve) >= FEWEST else 1, len(curve) // 20)
    num = min(8, (len(curve) - skip) // 2)
    medians = parts_of(curve, num, skip=skip)
    undisturbed = steadily = False
    if len(curve) >= FEWEST and medians.steadiness >= MEDIANS_STEADY:
        parts = parts_of(curve, num, quantile=QUICKEST, skip=skip)
        undisturbed = parts.growth >= GROWN and parts.steadiness >= STEADY
    if not undisturbed:
        steadily = waits_longer(case, medians, skip) or grows_steadily(case, curve, medians, skip)
        if not (steadily or stays_slower(medians)):
            return
        parts = medians
    if parts.levels[0] <= 0.0:
        return  # a clock too coarse for the first steps tells no ratio
    jumps, crowded = parts.largest_jump > ONE_JUMP or not (undisturbed or steadily), [*_load(case)]
    if jumps and parts.growth < GROWN * GROWN:
        return
    unsure = jumps or few or bool(crowded) or waits_from_the_start(case)
    onset = parts.began(int(curve.steps[0]))
    first, last = float(parts.levels[0]), float(parts.levels[-1])
    course = "in one jump" if jumps else f"in {round(100 * (parts.steadiness + 1) / 2)} % of all pairs of eight parts"
    told = f"{'undisturbed, ' if undisturbed else ''}{last / first:.1f} times as long; the later is the slower {course}"
    evidence = [_ends(case, (onset, curve.last_step), first, last, told)]
    shares = list(_shares(case, last - first))
    evidence += [item for _, item in shares]
    evidence += _memory(case)
    evidence += crowded
    evidence += _heat(case)
    where = f", and it is {shares[0][0]} that grows" if shares else ""
    yield Finding(
        "throughput-decay",
        "info" if unsure else "warning",
        0.5 if unsure else 0.85 if parts.growth > GROWN * GROWN else 0.75,
        onset,
        f"steps take {last / first:.1f} times as long at the end as in the beginning, "
        + (f"since a jump at step {onset:,}: something else began there" if jumps else f"longer and longer{where}"),
        tuple(evidence),
        remedies=(
            Remedy(
                "look for what grows with the steps done: a list of losses or outputs that is kept with its graph, a "
                "file that is read from its start, a cache without a bound"
            ),
            *_profile(case),
        ),
    )


def _ends(case: Case, steps: tuple[int, int], first: float, last: float, told: str) -> Evidence:
    """How long a step took first and last; of a log of a speed alone, which tells of no step, the speed."""
    if any(case.history.has(name) for name in ("step_seconds", "tokens_read", "tokens")):
        text = f"a step took {format.step_time(first)} in the first eighth and {format.step_time(last)} in the last"
        return Evidence("step_seconds", steps, last, first, f"{text}, {told}")
    name = "tokens_per_second" if case.history.has("tokens_per_second") else "speed"
    much, little = (f"{speed:,.0f}" if speed >= 100 else format.decimal(speed) for speed in (1 / first, 1 / last))
    text = f"{much} a second were done in the first eighth and {little} in the last: each took"
    return Evidence(name, steps, 1 / last, 1 / first, f"{text} {told}")


def _grows_by_plan(case: Case) -> bool:
    planned = ("model.unfreeze", "control.unfreezing.name", "optimizer_switch", "data.curriculum")
    nothing: tuple[object, ...] = (None, False, (), [], {}, "none")
    return any(name.startswith(planned) and value not in nothing for name, value in case.config.items())


def _shares(case: Case, grown: float) -> Iterator[tuple[str, Evidence]]:
    """The part of a step that makes more than half of the growth."""
    for name, part in _PARTS.items():
        curve = Curve.of(case.history.get(name))
        if curve is None or len(curve) < 8:
            continue
        parts = parts_of(curve, min(8, len(curve)), quantile=QUICKEST if len(curve) >= FEWEST else 0.5)
        rise = float(parts.levels[-1] - parts.levels[0])
        if rise > 0.5 * grown:
            text = f"{part} took {format.step_time(float(parts.levels[0]))} of it, and {rise / grown:.0%} of the growth"
            yield part, Evidence(name, (curve.first_step, curve.last_step), rise, 0.0, text)
            return


def _memory(case: Case) -> Iterator[Evidence]:
    curve = Curve.of(case.history.get("memory_bytes"))
    if curve is None or len(curve) < 16:
        return
    parts: Parts = parts_of(curve, skip=len(curve) // 5)
    if parts.steadiness > STEADY and parts.growth > 1.05:
        text = (
            f"memory grew with it, from {format.size(float(parts.levels[0]))} to {format.size(float(parts.levels[-1]))}"
        )
        steps = curve.first_step, curve.last_step
        yield Evidence("memory_bytes", steps, float(parts.levels[-1]), float(parts.levels[0]), text)


def _load(case: Case) -> Iterator[Evidence]:
    """Other programs that came by and by."""
    curve, cores = Curve.of(case.history.get("hardware/load")), case.number("cores")
    if curve is None or cores is None or len(curve) < 8:
        return
    parts = parts_of(curve, min(8, len(curve)))
    if parts.levels[-1] > cores and parts.growth > 1.2:
        text = f"the load of the machine grew with it, from {parts.levels[0]:.1f} to {parts.levels[-1]:.1f}"
        steps = curve.first_step, curve.last_step
        yield Evidence("hardware/load", steps, float(parts.levels[-1]), float(parts.levels[0]), text)


def _heat(case: Case) -> Iterator[Evidence]:
    for name in case.history.series:
        if name.startswith("hardware/") and name.endswith(("throttled_heat", "throttled_power", "throttled_hardware")):
            curve = Curve.of(case.history.get(name))
            if curve is not None and curve.end > max(0.2, 2 * curve.start):
                text = f"clocks were held down in {curve.end:.0%} of the readings at the end"
                yield Evidence(name, (curve.first_step, curve.last_step), curve.end, 0.0, text)


def _profile(case: Case) -> Iterator[Remedy]:
    last = case.history.last_step
    if case.target == "trimtab" and last > 20:
        yield Remedy(f"profile ten steps near the end, to see what takes long: profile.steps={last - 10}..{last}")
