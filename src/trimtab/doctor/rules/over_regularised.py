"""over-regularised: underfitting for which dropout, weight decay or smoothing is the reason.

Looks for: a regularizer far beyond what is usual (dropout above 0.3, AdamW's weight decay above 0.5, or Lion's above
    five times that, label smoothing above 0.2, a decay or L2 penalty that takes a hundredth of each weight in a step,
    or several that are strong together), signs that it holds the model back, and no sign of the overfitting that would
    ask for it. Signs are: a training loss that with dropout lies far above the same samples' without it; weights that
    shrink to a part of what they were; a validation loss that is no better than counting, or hardly below a guess; less
    than one pass over the data, in which nothing can be learned by heart, where a setting is far beyond.
Why it matters: the model could learn more than it may; with less regularization the same budget gives more.
Evidence: each setting beside its usual value, and what it does to the curves.
Remedy: the usual value: dropout 0.1, weight decay 0.1 or less, label smoothing 0.1 or none.
False alarms: strong regularization is right for small data seen many times: where the gap to the validation loss is
    open, or had been without it, nothing is said, but where far fewer answers are right than counting tells. Without
    settings it is withheld, but where the training loss alone is high, or both losses rise at once to a level and stay
    there, as weights that decay to nothing leave them; a remark in a log that begins in the middle, or by epochs, the
    first of which is no guess any more.
Source: the project's rules of thumb; Srivastava et al. 2014 (dropout); Szegedy et al. 2016 (smoothing); Loshchilov and
    Hutter 2019, arXiv 1711.05101 (weights where decay and gradient balance).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Withheld
from trimtab.doctor.reading.contradicted import WELL_BELOW, counting
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.levels import counted_loss, uniform_loss
from trimtab.doctor.reading.medians import median
from trimtab.doctor.reading.regularizers import largest_decay, largest_dropout, taken_in_a_step
from trimtab.doctor.remedies import OF_LION
from trimtab.doctor.rules.over_regularised_curves import DECAY_KEY, FEWEST, of_curves_alone, remedies_for
from trimtab.runs import format

DROPOUT: Final = 0.3
DECAY: Final = 0.5
SMOOTHING: Final = 0.2
STRONG: Final = (0.2, 0.3, 0.1)
"""Dropout, decay and smoothing of which two together are too much."""
FAR: Final = (0.5, 2.0, 0.3)
USUAL: Final = 0.1
"""Decay that takes its own part of each weight."""
FAST: Final = 0.01
"""Rate times decay, or an L2 penalty: what a step takes of each weight. So all is forgotten in a hundred steps."""
OPEN: Final = 0.05
"""Of the validation loss: a gap that is wider asks for regularization; twice as wide, where a setting is far off."""
COSTS: Final = 0.08
"""Of the loss without dropout."""
SHRUNK: Final = 0.7
SEEN: Final = (1.5, 3.0)
"""Epochs: before the first no gap is of learning by heart, from the second on a closed one asks for regularization."""
FEWEST_STANDING, HIGH, STANDS = 8, 0.3, 0.98
"""Evaluations; of a guess; and of the loss at a quarter of the run: one that does not come below stands."""
FORGETS: Final = 0.05
"""Rate times decay: so much of each weight is gone in a step that none holds what twenty steps before taught.
A decay that is usual takes as much only of optimizers that find their own step, whose rate is 1."""
ENOUGH: Final = 2.0
Sign = tuple[float, Evidence]


def check(case: Case) -> Iterator[Finding | Withheld]:
    """A warning where a setting is far beyond the usual and its mark is on the curves."""
    loss = Curve.of(case.loss())
    if loss is None or case.history.last_step < 0.5 * case.planned_steps:
        return
    dropout, decay, smoothing = largest_dropout(case), largest_decay(case), _number(case, "objective.label_smoothing")
    if dropout is None and decay is None and smoothing is None:
        yield from of_curves_alone(case, loss)
        return
    if len(loss) < FEWEST:
        return
    taken = taken_in_a_step(case, decay or 0.0)
    # A usual decay takes so much at a rate that is too high alone; with what adds it to the gradient none is usual.
    fast = taken > FAST and ((decay or 0.0) > USUAL or case.setting("optimizer.name") in ("sgd", "adam"))
    forgets = taken >= FORGETS and ((decay or 0.0) > DECAY or case.setting("optimizer.name") == "sgd")
    if decay is not None and case.fact("optimizer") == "lion":
        decay *= OF_LION  # as its rate is that much lower than AdamW's, which the usual decay is of
    strong = [
        value is not None and value >= limit for value, limit in zip((dropout, decay, smoothing), STRONG, strict=True)
    ]
    together = sum(strong) >= 2
    penalty = _number(case, "penalties.l2.strength")
    too_much = {
        "dropout": dropout is not None and (dropout > DROPOUT or (together and strong[0])),
        "decay": decay is not None and (decay > DECAY or (together and strong[1]) or fast),
        "smoothing": smoothing is not None and (smoothing > SMOOTHING or (together and strong[2])),
    }
    if not any(too_much.values()):
        return
    gap, validation = Curve.of(case.evaluated("generalization_gap")), Curve.of(case.validation_loss())
    level = validation.end if validation is not None else loss.end
    far = fast or any(
        value is not None and value >= limit for value, limit in zip((dropout, decay, smoothing), FAR, strict=True)
    )
    seen_again = not far or not 0.0 < case.epochs() < SEEN[0]
    below = list(_below_counting(case))
    if (
        gap is not None
        and seen_again
        and not below
        and not forgets
        and median(gap.values[-5:]) > (2 * OPEN if far else OPEN) * abs(level)
    ):
        return
    signs: list[Sign] = []
    if too_much["dropout"] and dropout is not None:
        signs += [_far("model.dropout", dropout, 0.1, FAR[0]), *_dropped(case, loss)]
    if too_much["decay"] and decay is not None:
        key = "penalties.l2.strength" if penalty else DECAY_KEY
        signs += [_far(key, decay, 0.1, 0.0 if fast else FAR[1]), *_shrunk(case, decay)]
        signs += [_forgotten(taken)] if forgets else []
    if too_much["smoothing"] and smoothing is not None:
        signs.append(_far("objective.label_smoothing", smoothing, 0.1, FAR[2]))
    high = below or list(_high(case, loss, validation)) or (list(_stands(case, validation)) if far else [])
    if not high and case.epochs() > SEEN[1] and not forgets:  # there regularization does its work
        return
    signs += [*high, *(_needless(case) if far else ())]
    if sum(weight for weight, _ in signs) < ENOUGH:
        return
    names = {
        "dropout": f"dropout of {dropout:g}" if dropout is not None else "",
        "decay": f"a weight decay of {decay:g}" if decay is not None else "",
        "smoothing": f"label smoothing of {smoothing:g}" if smoothing is not None else "",
    }
    reasons = " and ".join(names[name] for name, is_so in too_much.items() if is_so)
    evidence = [item for _, item in signs]
    if gap is not None:
        text = f"the gap to the validation loss is {format.decimal(gap.end)} at the end: nothing is learned by heart"
        evidence.append(Evidence("generalization_gap", (gap.first_step, gap.last_step), gap.end, None, text))
    yield Finding(
        "over-regularised",
        "warning",
        float(np.clip(0.6 + 0.1 * (sum(weight for weight, _ in signs) - ENOUGH), 0.6, 0.9)),
        loss.first_step,
        f"{reasons} {'holds' if ' and ' not in reasons else 'hold'} the model back: it could learn more than it may",
        tuple(evidence),
        remedies=tuple(remedies_for(case, too_much)),
    )


def _number(case: Case, name: str) -> float | None:
    return float(value) if isinstance(value := case.setting(name), int | float) else None


def _far(name: str, value: float, usual: float, far: float) -> Sign:
    """A setting beyond the usual, and twice as telling far beyond."""
    text = f"{name} is {value:g}, where {usual:g} or less is usual"
    return 1.0 if value >= far else 0.75, Evidence(name, (0, 0), value, usual, text)


def _forgotten(taken: float) -> Sign:
    """A decay that takes so much of each weight in a step that no curve need show it."""
    return 1.0, Evidence(
        "learning_rate", (0, 0), taken, FAST, f"at this rate each step takes {taken:.0%} of every weight"
    )


def _dropped(case: Case, loss: Curve) -> Iterator[Sign]:
    """What dropout costs on samples of the same kind."""
    without = Curve.of(case.evaluated("training_slice/loss")) or Curve.of(case.validation_loss())
    if without is None or len(without) < 2:
        return
    costs = loss.end - without.end
    if costs > COSTS * abs(without.end):
        text = (
            f"the training loss is {format.decimal(loss.end)} with dropout, and {format.decimal(without.end)} without "
            "it on text of the same kind"
        )
        yield 1.25, Evidence("train/loss", (loss.first_step, loss.last_step), loss.end, without.end, text)


def _shrunk(case: Case, decay: float) -> Iterator[Sign]:
    """Weights that end as a part of what they were in the first window."""
    steps, names, norms_WL = case.history.layers.values("weight_norm")
    matrices = [at for at, name in enumerate(names) if "norm" not in name and "bias" not in name]
    if len(steps) < 4 or not matrices:
        return
    first, last = norms_WL[0, matrices], norms_WL[-1, matrices]
    there = np.isfinite(first) & np.isfinite(last) & (first > 0)
    if there.any() and (kept := median(last[there] / first[there])) < SHRUNK:
        text = f"weights shrank to {kept:.0%} of what they began with, under a decay of {decay:g}"
        yield 1.25, Evidence("layer/*/weight_norm", (int(steps[0]), int(steps[-1])), kept, 1.0, text)


def _needless(case: Case) -> Iterator[Sign]:
    """Less than one pass over the data: nothing can be learned by heart that regularization would have to prevent."""
    epochs = case.epochs()
    if case.target == "trimtab" and 0.0 < epochs < 1.0:
        text = f"{epochs:.2g} of the training data were seen, once: there is nothing to learn by heart"
        yield 1.0, Evidence("facts.epochs", (0, case.history.last_step), epochs, None, text)


def _high(case: Case, loss: Curve, validation: Curve | None) -> Iterator[Sign]:
    """A level that is known to be high."""
    judged = validation if validation is not None and len(validation) >= 2 else loss
    lowest = float(judged.values.min()) if validation is not None else loss.floor
    bigram, uniform = counted_loss(case, "bigram"), _uniform(case)
    steps = judged.first_step, judged.last_step
    if bigram is not None and lowest > 0.97 * bigram:
        text = f"the loss comes to {format.decimal(lowest)}, where counting pairs reaches {format.decimal(bigram)}"
        yield 1.5, Evidence("validation/loss" if validation is not None else "train/loss", steps, lowest, bigram, text)
    elif uniform is not None and lowest > 0.75 * uniform:
        text = f"the loss comes to {format.decimal(lowest)}, where guessing costs {format.decimal(uniform)}"
        yield 1.0, Evidence("validation/loss" if validation is not None else "train/loss", steps, lowest, uniform, text)


def _stands(case: Case, validation: Curve | None) -> Iterator[Sign]:
    """A validation loss that does not come below what it was at a quarter of the run, far from nothing. So does one
    that has come to what its data let it, so that the setting must be far off."""
    uniform = _uniform(case)
    if uniform is None or validation is None or len(validation) < FEWEST_STANDING:
        return
    quarter, rest = float(validation.values[len(validation) // 4]), validation.values[len(validation) // 4 :]
    if quarter > HIGH * uniform and float(rest.min()) > STANDS * quarter:
        text = (
            f"the validation loss stands at {format.decimal(quarter)} from a quarter of the run on, where guessing "
            f"costs {format.decimal(uniform)}"
        )
        steps = validation.first_step, validation.last_step
        yield 1.0, Evidence("validation/loss", steps, float(rest.min()), quarter, text)


def _uniform(case: Case) -> float | None:
    """What guessing costs, of classes that a callback saw, or a file says, too."""
    number = case.number("num_classes")
    return uniform_loss(case) or (None if number is None else math.log(number))


def _below_counting(case: Case) -> Iterator[Sign]:
    """Far fewer right answers than counting runs of tokens gives, on the same texts."""
    accuracy, counted = Curve.of(case.evaluated("validation/accuracy")), ("counting", "labels", "validation_accuracy")
    reached = case.number(*counted)
    if accuracy is not None and reached is not None and accuracy.end < WELL_BELOW * reached:
        text = f"{accuracy.end:.0%} of the validation answers are right, where {counting(case)} tells {reached:.0%}"
        steps = accuracy.first_step, accuracy.last_step
        yield 1.0, Evidence("validation/accuracy", steps, accuracy.end, reached, text)
