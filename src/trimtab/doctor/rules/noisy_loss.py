"""noisy-loss: steps differ so much that progress drowns in them.

Looks for: a noise of single steps that is a good part of the loss, in batches of few tokens, while the level does not
    fall any more at a high rate, so that what is learned in one step is undone in the next. Where batches are not
    known, such a noise that is several times what the second half gained, at a rate that was never lowered.
Why it matters: a larger batch averages the noise away; with a batch this small only a decaying rate can.
Evidence: the noise beside the level and the descent, the tokens in a batch, the progress of the last stretch.
Remedy: more samples in a batch, in micro-batches as large as fit, at a rate to match (higher by
    the root of how many times more, and no higher than usual); a rate that decays; shuffled data.
False alarms: a small batch whose loss still falls is noisy to look at, and sound: that is no more than a remark.
    Nor is one sound that is below counts of pairs by less than the few tokens that are judged make uncertain. Batches
    of whole texts are not judged: 32 texts are not 32 tokens. Evaluations that fall show what a step's noise hides.
Source: McCandlish et al. 2018, arXiv 1812.06162, for batch and noise; own thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.bumps import bump_in_evaluations
from trimtab.doctor.reading.curves import Curve, Phases
from trimtab.doctor.reading.evaluations import error_of_tokens, judged_tokens
from trimtab.doctor.reading.levels import counted_loss, judged
from trimtab.doctor.reading.thrown import outgrown
from trimtab.doctor.remedies import change, learning_rate_in_use, sound_rate, uses_adam
from trimtab.runs import format

NOISE_OF_LEVEL = 0.1
FEW_TOKENS = 512
VERY_FEW_TOKENS = 32
FEWEST_TOKENS, SURE = 8, 0.92
"""Tokens that a step learns from: so few are too few whatever else is small, too."""
SCATTERS = 0.2
"""Of the loss, by steps of so few tokens."""
OF_WORDS = 2.5
"""Of a log that does not say what it is of: a first loss above that is of a dozen classes or more, as of characters."""
DROWNS = 2.5
"""Times what the second half gained."""
STILL = 0.06
"""Of the whole descent: a stretch that gains less stands still."""


def check(case: Case) -> Iterator[Finding]:
    """A warning when the level stands still in the noise; a remark when it still falls."""
    curve = Curve.of(case.loss())
    if curve is None or len(curve) < 60:
        return
    series = case.loss()
    assert series is not None
    if curve.end > curve.start + 3 * curve.noise:  # it left: what it scatters by there says nothing of the batch
        return
    noise = curve.noise * float(np.sqrt(series.width))  # a bucket's mean is that much quieter than a step
    level = max(abs(curve.end), 0.5 * curve.descent)  # a loss near zero makes any noise look large
    tokens = Curve.of(case.history.get("tokens"))
    batch = tokens.median if tokens is not None else case.number("tokens_per_step")
    tiny = batch is not None and batch <= VERY_FEW_TOKENS
    if noise < (0.4 if tiny else 1.0) * NOISE_OF_LEVEL * level or (batch is not None and batch > FEW_TOKENS):
        return
    if 0.0 <= curve.end < noise and float(curve.values.min()) >= 0.0:
        return  # nothing scatters by more than it is: the noise is that of the steps before it was learned
    phases = Phases.of(case.history.get("learning_rate"), curve.first_step, curve.last_step)
    begin, end = phases.peak_from, phases.high_until
    middle = begin + 0.4 * (end - begin)
    gained, least = curve.progress(middle, end), STILL * curve.descent
    stands = tiny or gained < max(least, 0.5 * noise)
    judged_at = Curve.of(case.validation_loss())
    if judged_at is not None and len(judged_at) >= 5:  # free of the noise of steps
        fell = np.interp([middle, end], judged_at.steps, judged_at.values)
        gained = max(gained, float(fell[0] - fell[1]))
        stands = tiny or (stands and gained < least)
    reached = judged(case)
    bigram = counted_loss(case, "bigram")
    judged_here = judged_tokens(case)
    chance = 0.0 if judged_here is None else error_of_tokens(judged_here)
    sound = reached is not None and bigram is not None and reached.floor < (1.0 - chance) * bigram
    batch_in_words = "the batch is small, so the loss scatters" if batch is not None else "the loss scatters"
    course = "its level hardly falls any more" if stands and gained < least else "its level still falls"
    decayed = curve.level(end - (end - middle) / 4, end) - curve.end if phases.decays else 0.0
    known = batch is not None or noise > 0.3 * level
    grave = stands and known and not sound and decayed < 0.1 * curve.descent
    # So few tokens that a decaying rate does not make up for it.
    fewest = batch is not None and batch <= FEWEST_TOKENS
    grave = grave or (fewest and not sound and noise > SCATTERS * level)
    drowned = batch is None and _drowns(case, curve, phases, noise)
    # A level that a spike lifts has not come to rest; and what scatters more and more is not the batch.
    grave = (grave or drowned) and bump_in_evaluations(case) is None and outgrown(case) is None
    evidence = [
        Evidence(
            "train/loss",
            (int(middle), curve.last_step),
            noise,
            NOISE_OF_LEVEL * level,
            f"single steps scatter by {format.decimal(noise)}, which is {100 * noise / max(level, 1e-12):.0f} % of "
            + (
                f"the loss, {format.decimal(curve.end)}"
                if level <= abs(curve.end)
                else f"half of all that the loss fell, {format.decimal(curve.descent)}; it came to "
                f"{format.decimal(curve.end)}"
            ),
        ),
        Evidence(
            "train/loss",
            (int(middle), int(end)),
            gained,
            STILL * curve.descent,
            f"from step {int(middle):,} to {int(end):,} the level {'fell' if gained >= 0 else 'rose'} by "
            f"{format.decimal(abs(gained))}; it fell by {format.decimal(curve.descent)} in all",
        ),
    ]
    if batch is not None:
        evidence.append(
            Evidence("tokens", (1, curve.last_step), batch, FEW_TOKENS, f"a step sees {format.count(batch)} tokens")
        )
    cause = f"{batch_in_words}; {course}"
    if grave and drowned:
        cause = (
            "a step's noise is many times what the second half gained, and the rate was never lowered: the batch is "
            "too small for it"
        )
    elif grave:
        course = "little of a step is kept" if fewest and gained >= least else "its level hardly falls any more"
        cause = f"the batch is so small that steps undo each other: the loss scatters, and {course}"
    yield Finding(
        "noisy-loss",
        "warning" if grave else "info",
        (SURE if fewest else 0.8) if grave and batch is not None else 0.6 if drowned else 0.55,
        curve.first_step,
        cause,
        tuple(evidence),
        remedies=(
            *_more(case),
            Remedy("let the learning rate decay to a tenth or less by the end"),
        ),
    )


def _drowns(case: Case, curve: Curve, phases: Phases, noise: float) -> bool:
    """Of a log of a language model that does not tell its batches: whether the noise of a step is several times what
    the second half gained, at a rate that is never lowered, so that nothing averages it away."""
    rates, validation = Curve.of(case.history.get("learning_rate")), Curve.of(case.validation_loss())
    if rates is None or phases.decays or float(rates.values[-1]) < 0.9 * phases.peak or curve.start < OF_WORDS:
        return False
    middle, judged = (curve.first_step + curve.last_step) / 2, validation
    gained = curve.progress(middle, curve.last_step)
    if judged is not None and len(judged) >= 5:
        gained = float(np.interp(middle, judged.steps, judged.values)) - float(judged.values[-1])
    return case.history.last_step >= 0.8 * case.planned_steps and noise > DROWNS * gained


def _more(case: Case) -> list[Remedy]:
    summary, now = "average the gradient over more samples", case.setting("training.accumulation")
    if (batch := case.setting("training.batch_size")) is not None:
        return [change(case, summary, batch_size=8 * batch) if isinstance(batch, int) else Remedy(summary)]
    if case.target == "trimtab" and isinstance(micro := case.setting("training.micro_batch_size"), int) and now:
        config = {"training.batch_size": 8 * micro * now, "training.micro_batch_size": "auto"}
        summary += ", in micro-batches as large as fit"
        rate, usual = learning_rate_in_use(case), sound_rate(case)
        if not uses_adam(case) or rate is None or usual is None or rate >= usual:
            return [Remedy(summary, case.target, config)]
        higher = float(f"{min(math.sqrt(8.0) * rate, usual):.1e}")
        more = change(case, f"{summary}, at a rate of {higher:g} to match", learning_rate=higher)
        return [Remedy(more.summary, case.target, {**config, **more.config})]
    return [change(case, summary, accumulation=8 * now) if isinstance(now, int) else Remedy(summary)]
