"""missing-warmup: the rate is at its full height from the first step, and the first updates do damage.

Looks for: a rate that does not rise (seven tenths of its height or more in the first steps), a loss that is thrown far
    above where it began within the first tenth of the run, by more than its noise and a part of all that is gained, or
    is thrown up and down by much again and again, and that then falls quietly at the same high rate: later updates of
    the same size are sound. A loss that is thrown up a hundredfold need not come back to where it began: later updates
    undo most of those orders of magnitude. With post-norm layers and Adam, of which it is known that they need a
    warm-up, also a loss that stands at what counting single tokens reaches, and, as a remark, a rate at four times the
    usual one. With Adam at ten times the usual rate a loss that hardly falls for a tenth of the run, and then does at
    that rate.
Why it matters: in the first steps gradients are largest and Adam's second moments are known from a few of them, so that
    its first steps are as large as any in every direction; what they destroy may take most of the run to mend.
Evidence: the rate of the first steps beside its peak, the loss before and after them, the gradient there, and when the
    loss was back.
Remedy: a linear warm-up over 2 to 10 % of the steps.
False alarms: many runs do without a warm-up, and are sound: nothing is said where the loss does not rise. A loss that
    stays high or unsteady at this rate says that the rate is too high, not only too early; so does a rate that is five
    times the usual one. Where the loss is high it may scatter as much more: such a rise must last.
Source: Gotmare et al. 2019, arXiv 1810.13243; Liu et al. 2020, arXiv 1908.03265 (Adam's variance); Xiong et al. 2020,
    arXiv 2002.04745 (post-norm).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding
from trimtab.doctor.reading.curves import Curve, Floats, Phases, running_median
from trimtab.doctor.reading.levels import counted_loss
from trimtab.doctor.reading.medians import median
from trimtab.doctor.remedies import learning_rate_in_use, longer_warmup, sound_rate, uses_adam, warm_up
from trimtab.runs import format

RISES: Final = 0.7
"""Of the peak, in the first steps: a rate that begins there does not rise."""
EARLY: Final = 0.1
DAMAGE: Final = 0.15
"""Of the whole descent, above the start."""
NOISES: Final = 3.5
"""Of single losses, for two neighbours that are both so high."""
TOGETHER: Final = 3.5
"""Of single losses, for a rise of medians of three neighbours."""
BLOWN: Final = 100.0
"""Times the first loss: by so much nothing but an update throws a loss."""
MOSTLY: Final = 0.6
"""Of those orders of magnitude, that are undone at a high rate."""
TOO_HIGH: Final = 5.0
"""Times the usual rate: then the rate is too high, with or without a warm-up, unless the run learns at it later."""
FAR_TOO_HIGH: Final = 10.0
"""Times the usual rate: with less a small network that begins late is sound, and it is its task that begins so."""
LATE: Final = 0.35
"""Of the whole descent, that a run has gained after its first tenth at most: it stood there."""
LEARNS: Final = 0.4
"""Of the whole descent, that is gained while the rate is high: it is not the height that hinders it."""
POST_NORM: Final = 4.0
"""Times the usual rate, at which layers that normalize behind their sums often need a warm-up."""


class Damage(NamedTuple):
    """What starting at the full rate cost: since when, what shows it, how sure that is, and in words."""

    onset: int
    evidence: list[Evidence]
    confidence: float
    cost: str = "the first updates do damage"
    only_early: bool = False
    """Whether it is known that a later rate of that height does not do so."""


def check(case: Case) -> Iterator[Finding]:
    """A warning where later updates at the same rate are sound; a remark where the rate itself is too high."""
    loss, rates = Curve.of(case.loss()), Curve.of(case.history.get("learning_rate"))
    if loss is None or rates is None or len(loss) < 40 or loss.first_step > max(2, 0.005 * case.planned_steps):
        return
    phases = Phases.of(case.history.get("learning_rate"), loss.first_step, loss.last_step)
    if not phases.peak > 0 or float(rates.values[:2].min()) < RISES * phases.peak:
        return
    usual, rate = sound_rate(case), learning_rate_in_use(case) or phases.peak
    times = 0.0 if usual is None or uses_adam(case) is False else rate / usual
    late = _late(loss, phases) if times > FAR_TOO_HIGH else None
    damage = late or _damage(loss, phases) or _blown_up(loss, phases) or _stuck(case, loss)
    is_known = damage is None and case.setting("model.norm.placement") == "post"
    damage = damage or (_post_norm(loss, times) if is_known else None)
    if damage is None:
        return
    is_remark = is_known or (times > TOO_HIGH and not damage.only_early)
    first = Evidence(
        "learning_rate",
        (rates.first_step, int(rates.steps[min(2, len(rates) - 1)])),
        float(rates.values[0]),
        0.1 * phases.peak,
        f"the first step was made at {rates.values[0]:.2g}, {rates.values[0] / phases.peak:.0%} of the highest rate",
    )
    yield Finding(
        "missing-warmup",
        "info" if is_remark else "warning",
        0.5 if is_remark else damage.confidence,
        damage.onset,
        f"the rate is at its full height from the first step, and {damage.cost}",
        (first, *damage.evidence, *_gradient(case, damage.onset, loss)),
        remedies=tuple(longer_warmup(case) or [warm_up(case)]),
    )


def _late(loss: Curve, phases: Phases) -> Damage | None:
    """A loss that hardly falls in the first tenth, and falls later at the same rate."""
    tenth = loss.first_step + int(EARLY * (loss.last_step - loss.first_step))
    if phases.high_until <= 2 * tenth:
        return None
    gained = loss.start - loss.level(0.5 * tenth, tenth)
    later = loss.start - loss.level(phases.high_until - tenth, phases.high_until)
    if loss.descent <= 0.1 * abs(loss.start) or gained > LATE * loss.descent or later < LEARNS * loss.descent:
        return None
    text = (
        f"the loss fell by {format.decimal(max(gained, 0.0))} in the first tenth of the run, and by "
        f"{format.decimal(later)} while the rate was as high"
    )
    evidence = Evidence("train/loss", (loss.first_step, tenth), gained, loss.descent, text)
    return Damage(loss.first_step, [evidence], 0.65, "the run hardly learns in its first tenth", only_early=True)


def _post_norm(loss: Curve, times: float) -> Damage | None:
    """A rate that is known to want a warm-up with layers that normalize behind their sums, whatever it cost: a few such
    layers learned as much without, and more."""
    if times < POST_NORM:
        return None
    text = f"the layers normalize behind their sums, and the rate is {times:.1f} times what is usual at this size"
    evidence = Evidence("learning_rate", (loss.first_step, loss.last_step), times, POST_NORM, text)
    return Damage(loss.first_step, [evidence], 0.5, "post-norm layers often need a warm-up there")


def _damage(loss: Curve, phases: Phases) -> Damage | None:
    """A loss that the first updates throw up, and that later ones of the same rate bring down."""
    start = float(loss.values[0])
    until = loss.first_step + EARLY * (loss.last_step - loss.first_step)
    early = loss.between(loss.first_step, max(until, loss.first_step + 12))
    if early is None or len(early) < 5:
        return None
    # Two neighbours, both above the start: a single batch is no damage.
    pairs = np.stack([early.values[1:-1], early.values[2:]])
    heights = np.where(pairs.min(axis=0) > start, pairs.mean(axis=0), -np.inf)
    at = 1 + int(np.argmax(heights))
    height = float(heights[at - 1])
    fell = max(start - loss.floor, 0.0)
    # Where the loss is high it may scatter more than later: then neighbours that go together tell a rise from chance.
    in_proportion = loss.noise * max(abs(start) / max(abs(loss.end), 1e-12), 1.0)
    is_chance = height - start <= NOISES * in_proportion and _rise(early.values) <= TOGETHER * in_proportion
    if is_chance or height - start <= max(DAMAGE * fell, NOISES * loss.noise, 0.02 * abs(start)):
        rest = loss.between(early.last_step + 1, phases.high_until)
        thrown = None if rest is None or len(rest) < 24 else _thrown_about(early, rest, fell, loss.noise)
        if thrown is None or float(np.std(np.diff(early.values))) < 2.0 * 2**0.5 * in_proportion:
            return None
        at, height = thrown
    later = loss.between(int(early.steps[at]), phases.high_until)
    if later is None or len(later) < 12:
        return None
    back = np.flatnonzero(later.smoothed < start - 0.25 * fell)
    if not len(back) or fell <= 0.05 * abs(start):
        return None
    rest = later.between(int(later.steps[back[0]]), later.last_step)
    if rest is None or float(rest.smoothed.max()) > start:  # it left again at this rate
        return None
    risen = np.flatnonzero(early.values[1 : at + 1] > early.values[:at]) + 1
    if not len(risen):
        return None
    onset, mended = int(early.steps[risen[0]]), int(later.steps[back[0]])
    text = (
        f"the loss rose from {format.decimal(start)} to {format.decimal(height)} by step {int(early.steps[at]):,}, and "
        f"was a quarter of its way below the start at step {mended:,} only, at the same high rate"
    )
    evidence = Evidence("train/loss", (onset, mended), height, start, text)
    return Damage(max(onset - 1, 1), [evidence], 0.85)


def _blown_up(loss: Curve, phases: Phases) -> Damage | None:
    """A loss that the first updates throw up by orders of magnitude, most of which later ones of the same rate undo."""
    early = loss.between(loss.first_step, max(loss.first_step + EARLY * (loss.last_step - loss.first_step), 12.0))
    start, later = float(loss.values[0]), loss.between(loss.first_step, phases.high_until)
    if early is None or later is None or len(early) < 5 or start <= 0.0 or not (later.values > 0.0).all():
        return None
    at = int(np.argmax(early.values))
    height, mended = float(early.values[at]), float(later.smoothed[-1])
    if height < BLOWN * start or height != float(loss.values.max()):
        return None
    if np.log(height / mended) < MOSTLY * np.log(height / start):
        return None
    step = int(early.steps[at])
    text = (
        f"the loss rose from {format.decimal(start)} to {format.decimal(height)} by step {step:,}, and came down to "
        f"{format.decimal(mended)} while the rate was as high"
    )
    return Damage(loss.first_step, [Evidence("train/loss", (loss.first_step, step), height, start, text)], 0.75)


def _rise(values: Floats) -> float:
    """The largest rise of a median of three neighbours above an earlier one."""
    middle = running_median(values, 3)
    return float((middle - np.minimum.accumulate(middle)).max())


def _thrown_about(early: Curve, later: Curve, fell: float, noise: float) -> tuple[int, float] | None:
    """Where a loss that rises by much again and again in the first steps, and never later at this rate, is highest: the
    index and the value."""
    much = max(0.3 * fell, 6 * noise)
    rises = np.diff(early.values)
    many = rises > much
    if many.sum() < 2 or (many.sum() == 2 and float(rises.max()) < 0.6 * fell):
        return None
    if (np.diff(later.values) > much).any():
        return None
    at = 1 + int(np.argmax(early.values[1:]))
    return at, float(early.values[at])


def _stuck(case: Case, loss: Curve) -> Damage | None:
    """Post-norm layers whose run stands at what counting single tokens reaches."""
    unigram = counted_loss(case, "unigram")
    if case.setting("model.norm.placement") != "post" or not uses_adam(case) or unigram is None:
        return None
    half = loss.first_step + 0.5 * (loss.last_step - loss.first_step)
    lowest = min(loss.level(half, loss.last_step), loss.end)
    if lowest < 0.95 * unigram or loss.end > loss.start:
        return None
    text = (
        f"the loss stands at {format.decimal(lowest)} in the second half, where counting single tokens reaches "
        f"{format.decimal(unigram)}: the layers, which normalize behind their sums, learned nothing"
    )
    return Damage(1, [Evidence("train/loss", (int(half), loss.last_step), lowest, unigram, text)], 0.75)


def _gradient(case: Case, onset: int, loss: Curve) -> Iterator[Evidence]:
    """A gradient that is far larger in the first steps than in the rest."""
    norms = Curve.of(case.history.get("grad_norm"))
    if norms is None:
        return
    early = norms.between(norms.first_step, onset + 0.05 * (loss.last_step - loss.first_step))
    rest = norms.between(onset + 0.2 * (loss.last_step - loss.first_step), norms.last_step)
    if early is None or rest is None:
        return
    largest, usual = float(early.values.max()), median(rest.values)
    if usual > 0 and largest > 5 * usual:
        text = (
            f"the gradient norm reached {format.decimal(largest)} there, {largest / usual:.0f} times what it was later"
        )
        yield Evidence("grad_norm", (early.first_step, early.last_step), largest, usual, text)
