"""unshuffled-data: the data comes in an order that the loss follows.

Looks for: rows sorted by their targets that are not shuffled (the fact `order`, of classes, numbers, or the first
    words of second texts, with `data.shuffle` false). In the curves: a training loss that jumps up again and again, at
    once, and then falls over many steps, while the validation loss lies far above its lows: each kind of sample is
    learned when it comes, and forgotten when the next does. Two jumps do where the settings say that nothing is
    shuffled, or where the validation loss goes up before the highest and comes back; one alone then does where an epoch
    ends. Where it lies above them by less than half of a jump, or there is none, the jumps must come at even distances,
    as epochs do: four at least without one. Or the loss goes up and down in the same way again and again, each time
    over many steps: the order of an epoch.
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
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.curves import Curve, running_median
from trimtab.doctor.reading.medians import quantile, sliding_minimum
from trimtab.runs import format

CODE: Final = "unshuffled-data"
FAR: Final = 0.25
"""Of the way from an order by chance to one that is sorted."""
FEWEST_STEPS: Final = 60
FEWEST_FOR_JUMPS: Final = 36
LEAST: Final = 0.15
"""Correlation of a step with the one to four after it, less a trend: what is left of noise has none."""
SURE: Final = 2.8
"""Standard errors of that correlation."""
SIZE: Final = 0.02
"""Of the loss, or of all that was gained: a course that moves it by less is not worth telling."""
AGAIN: Final = 0.5
"""The same with the step an epoch later."""
AT_ONCE: Final = 0.5
"""Of the deviation from the trend: the farthest of its moves from one step to the next."""
REACHED: Final = 0.7
"""Of the validation loss, a mean over what was just seen and what was not: samples of what was not cost more."""
SWING: Final = 1.5
"""Times what it was before and is afterwards: so far a validation loss goes up while one kind alone is learned."""
HEIGHT: Final = 0.25
"""Of the whole range of the loss: what a jump must have."""


class Jump(NamedTuple):
    """Index of the low before a jump, of the top after it, and both losses."""

    low_at: int
    top_at: int
    low: float
    top: float


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
        low = float(np.median([one.low for one in jumps]))
        told = (
            f"before these jumps it was {format.decimal(low)}, and the validation loss {format.decimal(validation.end)}"
        )
        steps = (validation.first_step, validation.last_step)
        yield Evidence("validation/loss", steps, validation.end, low, told)


def _forgets(case: Case, curve: Curve, jumps: list[Jump]) -> bool:
    """Whether the lows are of what has just been seen alone: the validation loss is far above them, or, without one,
    they come at even distances."""
    lows = np.array([one.low for one in jumps])
    validation = Curve.of(case.validation_loss())
    if validation is not None:
        beside = np.interp(curve.steps[[one.low_at for one in jumps]], validation.steps, validation.values)
        height = float(np.median([one.top - one.low for one in jumps]))
        above = float(np.median(beside - lows))
        if float(np.median([one.top for one in jumps])) < REACHED * float(np.median(beside)):
            return False
        swings = _swings_against(validation, curve, jumps)
        if swings and len(jumps) == 1:
            return _ends_an_epoch(case, curve, jumps[0])
        two = len(jumps) >= 2 and above > max(0.2 * height, 0.15 * float(np.median(lows)))
        if two and swings:
            return True
        if case.setting("data.shuffle") is False:
            return two
        if len(jumps) >= 3 and above > max(0.5 * height, float(np.median(lows))):
            return True
        return _are_even(jumps) and above > max(float(np.median(lows)), 4.0 * curve.noise)
    return _are_even(jumps)


def _swings_against(validation: Curve, curve: Curve, jumps: list[Jump]) -> bool:
    """Whether the validation loss rose while the training loss fell to the low of the highest jump, and came back."""
    highest = max(jumps, key=lambda one: one.top - one.low)
    # An evaluation after the next row may have met the jump itself.
    num = int((validation.steps <= curve.steps[min(highest.low_at + 1, len(curve) - 1)]).sum())
    if num < 3 or len(validation) - num < 2:
        return False
    lowest = max(float(validation.values[: num - 1].min()), float(validation.values[num:].min()))
    return float(validation.values[num - 1]) > SWING * lowest


def _ends_an_epoch(case: Case, curve: Curve, jump: Jump) -> bool:
    """Whether the data begins anew there, as far as is known."""
    passes, top = case.epochs(), int(curve.steps[jump.top_at])
    begins = round(passes * int(curve.steps[jump.low_at]) / case.history.last_step) if passes >= 2.0 else 0
    if begins < 1:
        return False
    low = int(curve.steps[max(jump.low_at - 1, 0)])
    return low <= begins * case.history.last_step / passes <= top


def _is_alone(case: Case) -> bool:
    """Whether there are no evaluations: targets that are set anew by plan, and a rate that is not logged, do the same
    to the training loss."""
    return case.target != "trimtab" and case.validation_loss() is None


def comes_again(case: Case, curve: Curve) -> bool:
    """Whether the loss jumps at even distances, and no evaluation tells why."""
    return _is_alone(case) and _are_even(jumps_of(curve, case))


def _are_even(jumps: list[Jump]) -> bool:
    """Whether four jumps and more come at even distances; one that begins within another is not counted."""
    lows, until = list[int](), -1
    for one in jumps:
        if one.low_at >= until:
            lows.append(one.low_at)
        until = max(until, one.top_at)
    gaps = np.diff(lows)
    return len(lows) >= 4 and float(gaps.mean()) >= 8 and float(gaps.std()) < 0.2 * float(gaps.mean())


def jumps_of(curve: Curve, case: Case) -> list[Jump]:
    """Rises of the loss within few steps, each followed by a fall over more; none where the rate rose with it."""
    if len(curve) < FEWEST_FOR_JUMPS:
        return []
    values = curve.running_median(5 if len(curve) >= 200 else 3)
    height = max(HEIGHT * (quantile(values, 0.98) - float(values.min())), 6.0 * curve.noise)
    quick = max(6 if len(curve) >= FEWEST_STEPS else 3, len(curve) // 60)
    found: list[Jump] = []
    lows = sliding_minimum(np.concatenate([np.full(quick, np.inf), values]), quick + 1)
    if (values - lows < height).all():
        return found
    each = values.tolist()
    low_at, index = 0, 1
    while index < len(values):
        if each[index] <= each[low_at] or index - low_at > quick:
            # The low is the least of the last few: a rise that takes longer is none.
            start = max(0, index - quick)
            low_at = start + int(values[start : index + 1].argmin())
        if each[index] - each[low_at] >= height:
            end = min(len(values), index + quick)
            top_at = index + int(values[index:end].argmax())
            falls = np.flatnonzero(values[top_at:] <= values[low_at] + 0.4 * (values[top_at] - values[low_at]))
            back_at = top_at + int(falls[0]) if len(falls) else len(values) - 1
            if back_at - top_at >= (4 if len(curve) >= FEWEST_STEPS else 3) and not _rate_rose(
                case, curve, low_at, top_at
            ):
                found.append(Jump(low_at, top_at, float(values[low_at]), float(values[top_at])))
            index = low_at = max(back_at, top_at + 1)
        index += 1
    return found


def _rate_rose(case: Case, curve: Curve, low_at: int, top_at: int) -> bool:
    rates = Curve.of(case.history.get("learning_rate"))
    if rates is None:
        return False
    first, last = (
        float(np.interp(curve.steps[place], rates.steps, rates.values)) for place in (max(0, low_at - 8), top_at)
    )
    return last > 1.3 * first


def _by_period(case: Case, curve: Curve) -> Iterator[Evidence]:
    """A course that comes again: neighbouring steps go together, and so do steps an epoch apart."""
    rates = Curve.of(case.history.get("learning_rate"))
    if len(curve) < FEWEST_STEPS or case.counts_epochs:  # a mean of an epoch has nothing of its order
        return
    begin = len(curve) // 8
    after = None if rates is None else rates.between(float(curve.steps[begin]), rates.last_step)
    if after is not None and (after.values[1:] > 1.3 * after.values[:-1]).sum() > 1:
        return  # a rate that rises again and again; a warm-up is over by then
    values = curve.values[begin:]
    ends, medians, length = Curve(np.arange(len(values)), values).blocks(6)
    trend = np.interp(np.arange(len(values)), ends - length / 2, medians)
    rest = np.clip(values - trend, -8.0 * curve.noise - 1e-12, None)
    rest = rest - rest.mean()
    smooth = running_median(rest, 3)
    size = float(np.std(smooth))
    if size < max(SIZE * abs(float(np.median(trend))), SIZE * curve.descent):
        return
    together = autocorrelation(rest, len(values) // 2)
    below = np.flatnonzero(together < 0.1)
    if not len(below):
        return
    first = int(below[0])
    # The first of those that come near the highest: two epochs go together as one does.
    lag = first + int((together[first:] >= 0.9 * together[first:].max()).argmax())
    if lag < 8 or together[lag] < AGAIN or not _in_blocks(values, lag, curve.noise):
        return
    if float(together[:lag].min()) > -LEAST:
        return
    moves = np.diff(smooth)
    up, down = quantile(moves, 0.98), -quantile(moves, 0.02)
    # Stairs go down where texts come again. One kind follows another at once, and a swing of the weights is smooth.
    if up < 0.6 * down or max(up, down) < AT_ONCE * size:
        return
    steps = round(lag * (curve.last_step - int(curve.steps[begin])) / max(1, len(values) - 1))
    told = (
        f"the training loss goes up and down by {format.decimal(size)} in a course that comes again every {steps:,} "
        f"steps (correlation {together[lag]:.2f})"
    )
    yield Evidence("train/loss", (int(curve.steps[begin]), curve.last_step), float(together[lag]), 0.0, told)


def _in_blocks(values: NDArray[np.float64], lag: int, noise: float) -> bool:
    """Whether neighbours go together, less the mean of each `lag` values, which holds all of a trend and nothing of
    what comes again. In an order by chance that does as many values as an epoch has tell of that."""
    trend = np.convolve(values, np.ones(lag) / lag, "valid")
    begin = (lag - 1) // 2
    rest = np.clip(values[begin : begin + len(trend)] - trend, -8.0 * noise - 1e-12, None)
    together = autocorrelation(rest - rest.mean(), 5)
    sums = [(float(together[1 : num + 1].mean()), (lag * num) ** 0.5) for num in (1, 2, 4)]
    return any(mean >= max(LEAST, SURE / root) for mean, root in sums)


def autocorrelation(values: NDArray[np.float64], lags: int) -> NDArray[np.float64]:
    """Of `values`, whose mean is 0, at lags of 0 to `lags` - 1: means of products over the variance."""
    size = 1 << (2 * len(values) - 1).bit_length()
    power = np.abs(np.fft.rfft(values, size)) ** 2
    sums = np.fft.irfft(power, size)[:lags]
    found: NDArray[np.float64] = sums / (len(values) - np.arange(lags)) / max(float(np.mean(values**2)), 1e-300)
    return found
