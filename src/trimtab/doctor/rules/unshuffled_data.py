"""unshuffled-data: the data comes in an order that the loss follows.

Looks for: rows sorted by their targets that are not shuffled (the fact `order`, of classes, numbers, or the first
    words of second texts, with `data.shuffle` false). In the curves: a training loss that jumps up again and again, at
    once, and then falls over many steps, while the validation loss lies far above its lows: each kind of sample is
    learned when it comes, and forgotten when the next does. Two jumps do where the settings say that nothing is
    shuffled, where both come as epochs end, or where the validation loss goes up before the highest and comes back; one
    alone then does where an epoch ends or the first has not, and one that evaluations do not follow, which are far
    above the training loss before it and far below afterwards, or, where nothing is shuffled, fall through it. Where it
    lies above them by less than half of a jump, or there is none, the jumps must come at even distances, as epochs do:
    three at least, and four without one. Or the loss goes up and down in the same way again and again, each time over
    many steps: the order of an epoch.
Why it matters: each step sees one kind of sample, and the next steps another. What was learned first is gone at the
    end.
Evidence: how far neighbouring rows agree; the jumps, and the two losses side by side.
Remedy: shuffle (`data.shuffle: true`; `shuffle=True` of a DataLoader; a larger window for a stream).
False alarms: a curriculum, whose jumps are planned; warm restarts, where the rate jumps first; the staircase of
    epochs, in which the loss jumps down where texts come again; spikes, after which the loss is where the validation
    loss is. Means of whole epochs tell nothing of an order in them. Without evaluations it is a remark: targets that
    are set anew by plan, and a rate that is not logged, do the same.
Source: Bengio 2012, arXiv 1206.5533, section 2.2; own for the sign in the curves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.courses import course_of
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.jumps import Jump, are_even, ends_an_epoch, jumps_of
from trimtab.doctor.reading.medians import median
from trimtab.runs import format

CODE: Final = "unshuffled-data"
FAR: Final = 0.25
"""Of the way from an order by chance to one that is sorted."""
REACHED: Final = 0.7
"""Of the validation loss, a mean over what was just seen and what was not: samples of what was not cost more."""
SWING: Final = 1.5
"""Times what it was before and is afterwards: so far a validation loss goes up while one kind alone is learned."""
FORGOT: Final = 1.1
"""Times what it was at best, or what a guess costs: above that something was forgotten."""
MOST: Final = 0.5
"""Of what had been gained before a jump: so much is undone by what is of another kind, and not by a harder batch."""
ABOVE: Final = 0.2
"""Of a jump, by which the validation loss lies above the low before it."""


def check(case: Case) -> Iterator[Finding]:
    """A warning."""
    if case.setting("data.shuffle") is True or case.fact("curriculum") is not None:
        return
    curve = Curve.of(case.loss())
    if curve is None:
        return
    jumps = jumps_of(curve, case)
    evidence = [*_sorted_rows(case)]
    by_rows = bool(evidence)
    if jumps:
        evidence += [*_by_jumps(case, curve, jumps)] if by_rows or _forgets(case, curve, jumps) else []
    if not by_rows:
        evidence += _by_period(case, curve)
    if not evidence:
        return
    remedy = Remedy("shuffle the training data: shuffle=True, or a larger window for a stream")
    if case.target == "trimtab" and case.setting("data.shuffle") is False:
        remedy = Remedy("shuffle the training data", "trimtab", {"data.shuffle": True})
    alone = _is_alone(case)
    yield Finding(
        CODE,
        "info" if alone else "warning",
        0.5
        if alone
        else 0.95
        if by_rows and jumps
        else 0.9
        if by_rows
        else 0.8
        if case.setting("data.shuffle") is False
        else 0.7,
        curve.first_step,
        "the data comes sorted: each kind of sample is learned when it comes and forgotten when the next does",
        tuple(evidence),
        remedies=(remedy,),
    )


def _sorted_rows(case: Case) -> Iterator[Evidence]:
    found, expected = (case.number("order", name) for name in ("found", "expected"))
    if found is None or expected is None or case.setting("data.shuffle") is not False:
        return
    if expected < 1.0 and found - expected >= FAR * (1.0 - expected):
        told = f"rows are not shuffled, and neighbours agree by {found:.2f}, by chance by {expected:.2f}"
        yield Evidence("facts.order", (0, 0), found, expected, told)


def _by_jumps(case: Case, curve: Curve, jumps: list[Jump]) -> Iterator[Evidence]:
    first, last = (int(curve.steps[place]) for place in (jumps[0].low_at, jumps[-1].top_at))
    highest = max(jumps, key=lambda one: one.top - one.low)
    told = (
        f"the training loss jumped up {format.counted(len(jumps), 'time')} between step {first:,} and {last:,}, from "
        f"{format.decimal(highest.low)} to {format.decimal(highest.top)} at most, and fell again over many steps"
    )
    yield Evidence("train/loss", (first, last), highest.top, highest.low, told)
    validation = Curve.of(case.validation_loss())
    if validation is not None:
        low = median(np.array([one.low for one in jumps]))
        told = (
            f"before these jumps it was {format.decimal(low)}, and the validation loss {format.decimal(validation.end)}"
        )
        steps = (validation.first_step, validation.last_step)
        yield Evidence("validation/loss", steps, validation.end, low, told)


def _forgets(case: Case, curve: Curve, jumps: list[Jump]) -> bool:
    """Whether the lows are of what has just been seen alone: the validation loss is far above them, or, without one,
    they come at even distances."""
    lows, tops = (np.array([getattr(one, name) for one in jumps]) for name in ("low", "top"))
    validation = Curve.of(case.validation_loss())
    if validation is None:
        return are_even(jumps)
    low, height = median(lows), median(tops - lows)
    beside = np.interp(curve.steps[[one.low_at for one in jumps]], validation.steps, validation.values)
    above = median(beside - lows)
    if float(np.quantile(tops, 0.75)) < REACHED * median(beside) or (curve.from_start and low > curve.start):
        return False  # what is learned of one kind costs less than a guess
    if any(_parts(validation, curve, one) for one in jumps):
        return True
    swings = _swings_against(validation, curve, jumps)
    if swings and len(jumps) == 1:
        return ends_an_epoch(case, curve, jumps[0]) or _is_of_the_first_pass(case, curve, jumps[0])
    far = above > max(ABOVE * height, 0.15 * low)
    at_ends = sum(ends_an_epoch(case, curve, one) for one in jumps)
    if far and (at_ends >= 2 or (len(jumps) >= 2 and swings)):
        return True
    if case.setting("data.shuffle") is False:
        return far and (len(jumps) >= 2 or _goes_on(validation, curve, jumps[0]))
    if len(jumps) >= 3 and above > max(0.5 * height, low):
        return True
    return are_even(jumps, 3) and above > max(low, 4.0 * curve.noise)


def _parts(validation: Curve, curve: Curve, jump: Jump) -> bool:
    """Whether evaluations do not follow a jump: worse than they were and far above the low before it, and far below the
    training loss while that is up. Weights that were damaged are bad at whatever they are asked."""
    before = validation.values[validation.steps <= curve.steps[jump.low_at + 1]]
    up = validation.between(float(curve.steps[jump.top_at]), float(curve.steps[jump.back_at]))
    if not len(before) or up is None or before[-1] - jump.low < ABOVE * (jump.top - jump.low):
        return False
    if before[-1] < FORGOT * min(curve.start, float(before.min())):
        return False  # tasks that are learned one after the other, each for good
    seen = np.interp(up.steps, curve.steps, curve.running_median(3))
    return bool((seen > SWING * up.values).any())


def _swings_against(validation: Curve, curve: Curve, jumps: list[Jump]) -> bool:
    """Whether the validation loss rose while the training loss fell to the low of the highest jump, and came back."""
    highest = max(jumps, key=lambda one: one.top - one.low)
    # An evaluation after the next row may have met the jump itself.
    num = int((validation.steps <= curve.steps[min(highest.low_at + 1, len(curve) - 1)]).sum())
    if num < 1 or len(validation) - num < 2:
        return False
    before = float(validation.values[: num - 1].min()) if num > 2 else curve.start  # what a guess costs
    return float(validation.values[num - 1]) > SWING * max(before, float(validation.values[num:].min()))


def _goes_on(validation: Curve, curve: Curve, jump: Jump) -> bool:
    """Whether the validation loss falls through a jump that undoes most of what the training loss had gained."""
    before = validation.values[validation.steps <= curve.steps[jump.top_at]]
    after = validation.values[validation.steps > curve.steps[jump.top_at]]
    high = jump.top - jump.low > MOST * (curve.start - jump.low)
    return high and len(before) > 0 and len(after) > 0 and float(after[0]) < float(before[-1])


def _is_of_the_first_pass(case: Case, curve: Curve, jump: Jump) -> bool:
    """Whether no sample was seen twice before it, so that nothing was learned by heart."""
    passes = case.epochs()
    return passes > 0 and passes * int(curve.steps[jump.top_at]) < case.history.last_step


def _is_alone(case: Case) -> bool:
    """Whether there are no evaluations: targets that are set anew by plan, and a rate that is not logged, do the same
    to the training loss."""
    return case.target != "trimtab" and case.validation_loss() is None


def comes_again(case: Case, curve: Curve) -> bool:
    """Whether the loss jumps at even distances, and no evaluation tells why."""
    return _is_alone(case) and are_even(jumps_of(curve, case))


def _by_period(case: Case, curve: Curve) -> Iterator[Evidence]:
    course = course_of(case, curve)
    if course is None:
        return
    told = (
        f"the training loss goes up and down by {format.decimal(course.size)} in a course that comes again every "
        f"{course.steps:,} steps (correlation {course.together:.2f})"
    )
    yield Evidence("train/loss", (course.begin, curve.last_step), course.together, 0.0, told)
