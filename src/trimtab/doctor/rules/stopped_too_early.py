"""stopped-too-early: all steps are done, and they were far too few.

Looks for: a run that did all its planned steps and saw less than a token for each parameter, whose loss was still
    falling and is no better than what frequencies of single tokens reach on the same text; of fewer than 24 steps, or
    less than a tenth of a token for each parameter, than what counting pairs of them reaches, whether it was still
    falling or only fell; of less than half a token for each parameter also while it stands where frequencies of single
    tokens do, as models do for a while; where that is not known, barely below a uniform guess. One on its way from
    single tokens to pairs gets a remark. A loss above that of pairs by no more than the few tokens that are judged make
    uncertain is as good. Where no level is known: of at most 75 updates over tokens, in less than one pass over them,
    one whose evaluations got better to the end; a remark, unless its rate is of training from scratch.
    Of another trainer's state file that tells how many steps were to be made: one that ends at three fifths of them and
    before, with both losses falling and the rate high.
Why it matters: nothing is wrong but the length, and every other question waits for a longer run.
Evidence: the loss beside the yardstick; tokens that were seen, for each parameter.
Remedy: more steps; or a model that is small enough for these.
    A validation loss that turned while the text came more than four times is no matter of steps.
False alarms: trials of a set-up, which are meant to be short. The state file of a run that still goes on. Models that
    were trained before are done after few updates, if the log does not tell that they were.
Source: own; tokens for each parameter: Hoffmann et al. 2022, arXiv 2203.15556, table 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.evaluations import error_of_tokens, judged_tokens
from trimtab.doctor.reading.levels import (
    are_weights_new,
    could_be_frequencies,
    counted_loss,
    is_first_stand,
    tokens_seen,
    uniform_loss,
)
from trimtab.doctor.remedies import change
from trimtab.runs import format

STILL: Final = 0.05
"""Of the whole descent: a second half that gains less stands still."""
FEW_VALUES: Final = 24
"""With fewer it is enough that the loss fell."""
NEAR: Final = 0.9
"""Of the loss of a uniform guess: a level above that is near it."""
MOST_EPOCHS: Final = 4.0
"""Of the same text teach nearly as much as new one (Muennighoff et al. 2023, arXiv 2305.16264)."""
FEWEST: Final = 0.1
"""Tokens for each parameter: with fewer no model is expected to come below counts of pairs, and none is done."""
LAST_QUARTER: Final = 0.05
"""Of the whole progress: a run that was long enough makes less in its last quarter."""
ENDED: Final = 0.6
"""Of the planned steps, at which a run that is over was not done."""
FULL: Final = 0.9
"""Of the highest rate: one below that has come down."""
FEWEST_STEPS: Final = 100
"""In a longer run a loss that falls says nothing by itself."""
FEW_UPDATES: Final = 75
"""No model of many tokens is done after so few, but one that was trained before."""
OF_WORDS: Final = 2.5
"""A first loss above that is of a dozen classes or more, as of characters."""
QUICK: Final = 0.2
"""Seconds."""
LEAKS: Final = 0.3
"""Of the first loss: to learn that much so soon a model must have been told the answers."""
AT_LOW_RATE: Final = 0.015
"""Of the whole progress, in the last third, of a rate that had come down or is not known."""
BEST: Final = 20.0
"""Tokens for each parameter that make the best of it."""


def check(case: Case) -> Iterator[Finding]:
    """A warning, once the run is over."""
    history, training = case.history, Curve.of(case.loss())
    if training is None or history.last_step < case.planned_steps:
        if training is not None:
            yield from _ended_before_plan(case, training)
        return
    judged = Curve.of(case.validation_loss()) or training
    lowest, tokens, parameters = float(judged.values.min()), tokens_seen(case), case.number("parameters", "total")
    part = None if tokens is None or not parameters else tokens / parameters
    is_short = history.last_step < FEW_VALUES
    unigram, bigram, uniform = counted_loss(case, "unigram"), counted_loss(case, "bigram"), uniform_loss(case)
    below = uniform is None or (case.target != "trimtab" and lowest < NEAR * uniform)
    if bigram is None and below:
        if case.counts_epochs:
            return  # a hundred epochs are not few
        yield from _few_updates(case, training)
        return
    hardly_begun = is_short or (part is not None and part < FEWEST) or _at_full_speed(case, training)
    hardly_begun |= history.last_step <= FEW_UPDATES and not _came_down(case)
    falls = _falls(training)
    turned = case.validation_loss() is not None and has_turned(judged)
    if turned and case.epochs() > MOST_EPOCHS:
        return  # of this data there is nothing more to learn: more steps would not help
    first_stand = is_first_stand(case, lowest) or (
        history.last_step <= FEWEST_STEPS and unigram is not None and abs(lowest - unigram) < 0.05 * unigram
    )
    if not falls and not ((hardly_begun or first_stand) and training.end < training.start):
        return
    if bigram is not None and unigram is not None:
        beyond_single = is_short or lowest < unigram
        level = bound = bigram if beyond_single else unigram
        if beyond_single and (number := judged_tokens(case)) is not None:
            bound *= 1.0 + error_of_tokens(number)
        yardstick = "counting pairs of tokens" if beyond_single else "counting single tokens"
        grave = hardly_begun or not beyond_single
    elif uniform is not None:
        level, bound, yardstick, grave = uniform, NEAR * uniform, "guessing", True
    else:
        return
    if lowest < bound or (part is None and not is_short) or (part is not None and part >= 1.0):
        return
    metric = "validation/loss" if case.validation_loss() is not None else "train/loss"
    told = f"the loss came to {format.decimal(lowest)} at best, and {yardstick} to {format.decimal(level)}"
    evidence = [Evidence(metric, (judged.first_step, judged.last_step), lowest, level, told)]
    seen = ""
    if part is not None and tokens is not None:
        told = (
            f"{format.short(tokens)} tokens were seen: {part:.2g} for each parameter, where about {BEST:.0f} are best"
        )
        evidence.append(Evidence("facts.parameters", (0, history.last_step), part, BEST, told))
        seen = f", with {part:.2g} tokens for each parameter"
    yield Finding(
        "stopped-too-early",
        "warning" if grave else "info",
        0.9 if part is not None else 0.7,
        history.last_step,
        f"{format.count(history.last_step)} steps are {'far too ' if grave else ''}few{seen}: "
        f"the model does no better than {yardstick}"
        + (", and its loss was still falling" if falls and not turned else ""),
        tuple(evidence),
        remedies=tuple(_remedies(case, part)),
    )


def _ended_before_plan(case: Case, training: Curve) -> Iterator[Finding]:
    """Of another trainer's own state file: it tells how many steps were to be made, and that it ends long before."""
    planned, validation = case.fact("log", "max_steps"), Curve.of(case.validation_loss())
    last, rates = case.history.last_step, Curve.of(case.history.get("learning_rate"))
    if not isinstance(planned, int) or last > ENDED * planned or validation is None or len(validation) < 2:
        return
    if has_turned(validation) or len(training) < 8 or training.first_step > 0.2 * last:
        return
    fell = training.level(training.first_step, 0.6 * last) - training.level(0.7 * last, last)
    if fell < 3.0 * training.error(len(training) // 3) or (
        rates is not None and rates.values[-1] < 0.5 * float(rates.values.max())
    ):
        return
    yield Finding(
        "stopped-too-early",
        "warning",
        0.6,
        last,
        f"the log ends at step {last:,} of {planned:,}, while the loss was falling at a high rate: it was stopped, has "
        "died, or still runs",
        (
            Evidence("train/loss", (last, last), float(last), float(planned), f"{planned:,} steps were to be made"),
            Evidence(
                "validation/loss",
                (validation.first_step, validation.last_step),
                float(validation.values[-1]),
                float(validation.values[0]),
                f"the validation loss came from {format.decimal(float(validation.values[0]))} to "
                f"{format.decimal(float(validation.values[-1]))}, which is its best",
            ),
        ),
        remedies=(Remedy("go on from the last checkpoint to the planned end"),),
    )


def _few_updates(case: Case, training: Curve) -> Iterator[Finding]:
    """Of a log without levels, whose steps are updates and not epochs: so few that a loss of many classes, which got
    better to the end, cannot be done."""
    validation, rates = Curve.of(case.validation_loss()), Curve.of(case.history.get("learning_rate"))
    last, passes = case.history.last_step, case.number("epochs")
    if validation is None or len(validation) < 4 or last > FEW_UPDATES:
        return
    # Epochs are logged and evaluated one by one, and take their time: what is evaluated between two rows is none.
    beside = len(training) < 2 * len(validation) and bool(np.isin(validation.steps[:-1], training.steps).all())
    if passes > 1.0 if passes is not None else beside and not _is_quick(case):
        return
    start = max(training.start, float(validation.values[0]))
    levels = validation.values if len(validation) < FEW_VALUES else validation.smoothed  # neighbours waver
    fell = float(levels[0] - levels[-1])
    if start < OF_WORDS or levels[-1] < LEAKS * start or fell <= 0 or (np.diff(levels) > AT_LOW_RATE * fell).any():
        return
    begin = validation.first_step + 2 / 3 * (validation.last_step - validation.first_step)
    gained = float(np.interp(begin, validation.steps, levels) - levels[-1])
    is_low = rates is None or rates.values[-1] < FULL * float(rates.values.max())
    if gained < (AT_LOW_RATE if is_low else LAST_QUARTER) * fell:
        return
    is_new = are_weights_new(case) and could_be_frequencies(case, start, float(levels[-1])) is not False
    told = (
        f"the validation loss came from {format.decimal(float(levels[0]))} to {format.decimal(float(levels[-1]))}, and "
        f"the last third of the run made {gained / fell:.0%} of that"
    )
    yield Finding(
        "stopped-too-early",
        "warning" if is_new else "info",
        0.65 if is_new else 0.5,
        last,
        f"{format.count(last)} updates are few for a loss of so many classes, and evaluations got better to the end"
        + ("" if is_new else ": too few, unless the model was trained before"),
        (Evidence("validation/loss", (int(begin), validation.last_step), gained, LAST_QUARTER * fell, told),),
        remedies=tuple(_remedies(case, None)),
    )


def _is_quick(case: Case) -> bool:
    """Whether a step takes less time than an epoch over tokens can."""
    seconds = Curve.of(case.history.get("step_seconds"))
    return seconds is not None and seconds.median < QUICK


def _at_full_speed(case: Case, training: Curve) -> bool:
    """Whether a short run ends at the full rate, and its last quarter made a good part of the whole progress."""
    if len(training) > FEWEST_STEPS or _came_down(case):
        return False
    curve = Curve.of(case.validation_loss()) or training
    begin = curve.first_step + 0.75 * (curve.last_step - curve.first_step)
    gained = float(np.interp(begin, curve.steps, curve.smoothed)) - float(curve.values[-1])
    return gained > LAST_QUARTER * training.descent > 0


def _came_down(case: Case) -> bool:
    """Whether the rate was lowered to less than half by the end, or is not known."""
    rates = Curve.of(case.history.get("learning_rate"))
    return rates is None or rates.values[-1] < 0.49 * float(rates.values.max())


def has_turned(judged: Curve) -> bool:
    """Whether it rose in the two evaluations after the best, or three and more came after it."""
    since = judged.values[int(judged.values.argmin()) :]
    return len(since) > 3 or (len(since) == 3 and bool((np.diff(since) > 0).all()))


def _falls(training: Curve) -> bool:
    """Whether the loss was still falling at the end, as far as so many values tell."""
    if len(training) < FEW_VALUES:
        return training.end < training.start
    middle, until = (training.first_step + training.last_step) / 2, training.last_step
    gained = training.level(middle - 0.1 * (until - middle), middle + 0.1 * (until - middle)) - training.end
    return gained > STILL * training.descent > 0


def _remedies(case: Case, part: float | None) -> Iterator[Remedy]:
    times = 10.0 if part is None else BEST / max(part, 1e-9)
    wanted = float(f"{math.ceil(case.history.last_step * min(times, 1e6)):.1e}")
    tokens, per_epoch = tokens_seen(case), case.number("tokens_per_epoch")
    more_text: list[Remedy] = []
    if tokens and per_epoch and wanted * tokens / case.history.last_step > MOST_EPOCHS * per_epoch:
        epochs = wanted * tokens / case.history.last_step / per_epoch
        few = f"{format.count(wanted)} steps would be {format.count(round(epochs))} epochs"
        more_text = [Remedy(f"more text, as {few} of this", "text")]
        wanted = float(f"{math.floor(MOST_EPOCHS * per_epoch * case.history.last_step / tokens):.1e}")
    if more_text and wanted < 1.5 * case.history.last_step:
        yield from more_text
    else:
        steps = {} if case.counts_epochs else {"steps": int(wanted)}
        yield change(case, f"train longer, for about {format.count(wanted)} steps", **steps)
        yield from more_text
    yield Remedy("a smaller model makes more of few tokens", "text")
