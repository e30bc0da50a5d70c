"""bad-initialization: the first loss is far from that of a uniform guess, or activations grow or vanish with depth.

Looks for: a first loss a fifth and a whole nat above ln V, what guessing costs, of a model that is not pretrained, or
    in a regression of ours ten times that of always saying the mean, where inputs are of usual size;
    where the number of classes is not known, a first loss that no number of them explains beside what wrong answers
    cost while most are wrong, or that is above a guess among a million where no rate could have thrown it there, and
    comes down soon; and before step 1 activations that grow or shrink a hundredfold from the first block to the last.
    Or a deviation, as it is set, at which each matrix makes what it gets twice as large and more, with blocks that give
    back ten times what is usual: norms hide that from the loss.
Why it matters: the first steps are spent on unlearning answers that were drawn at random, at a loss and a gradient that
    are many times too large; a signal that grows or vanishes with depth hardly lets early layers learn at all.
Evidence: the first loss beside ln V, the spread of the first logits, the growth of activations, how soon the loss came
    down.
Remedy: a smaller spread of weights (0.02; residual outputs divided by the square root of twice the depth), embeddings
    that are not drawn with a spread of 1 where the head shares them, a head that begins at nothing.
False alarms: a loss that is summed over micro-batches or samples begins above ln V, too, and stays as many times too
    high: here it must have come down to what guessing costs within the first fifth, or be as high in our own first
    evaluation, and in the end cost no more than answers that are right as often. A pretrained model begins below ln V,
    and its activations are not judged where the run knows that its weights come from a folder, or answer better than
    guesses. Tasks whose loss has no such level (regression), where that is known, are judged by activations alone. Sums
    over pixels, labels, frames or boxes begin above any guess, too, and so do squared errors: without an accuracy that
    tells a mean of cross-entropies the height alone is a remark. How many of the first answers are right tells nothing
    of how many classes there are: frequent words are guessed at once. Inputs far from unit scale begin as high, and
    targets do: where outputs move by hundreds of times the rate in a step the inputs are likelier, as weights of usual
    size could not do that.
Source: Glorot and Bengio 2010; Radford et al. 2019, section 2.3 (residual scale); Karpathy 2019, "A Recipe for Training
    Neural Networks" (verify loss at init).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy, Withheld
from trimtab.doctor.reading.beginnings import LARGEST_VOCABULARY, falls_from_the_first, high_start, is_mean
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.drawn import ENLARGES, as_set, enlarges, out_of_reach
from trimtab.doctor.reading.first_losses import MORE, TIMES, comes_down, is_as_high_judged, is_summed, most_classes
from trimtab.doctor.reading.levels import constant_loss, most_constant_loss, uniform_loss
from trimtab.doctor.rules.unscaled_inputs import LARGE as LARGE_INPUTS
from trimtab.doctor.rules.unscaled_inputs import OF_NUMBERS
from trimtab.runs import format

GROWS: Final = 100.0
SURE_LOGITS: Final = 3.0


def check(case: Case) -> Iterator[Finding | Withheld]:
    """A warning."""
    curve = Curve.of(case.loss())
    signs, start = [*_first_loss(case, curve), *_growth(case), *as_set(case), *out_of_reach(case)], high_start(case)
    by_height = not signs and start is not None and not start.is_mean
    if [item.expected for item in signs] == [math.log(LARGEST_VOCABULARY)] and curve is not None:
        by_height = not is_mean(case, curve)
    if not signs and start is not None:
        begun = (
            f"the first loss is {format.decimal(start.first)}, more than guessing among a million costs, and "
            f"{format.decimal(start.level)} after a fifth of the run; no rate was so high as to throw it there"
        )
        signs = [Evidence("train/loss", (1, start.quarter), start.first, start.level, begun)]
    if not signs:
        if case.target != "trimtab" and curve is not None and curve.values[0] > math.log(LARGEST_VOCABULARY):
            is_told = case.history.has("train/accuracy")
            needs = "a loss that is a mean" if is_told else "train/accuracy"
            yield Withheld("bad-initialization", (f"{needs}, or how many classes or tokens there are",))
        return
    evidence = [*signs, *_logits(case), *_course(case, curve, signs)]
    growth = any(item.metric != "train/loss" for item in signs)
    loss = next((item for item in signs if item.metric == "train/loss"), None)
    told = []
    if loss is not None and loss.observed is not None:
        told.append(f"the first loss, {format.decimal(loss.observed)}, is far above what guessing costs")
    if any(item.metric.startswith("model.") for item in signs):
        bag = case.setting("model.name") == "mlp"
        what = "embeddings are many times as large as is usual"
        told.append(what if bag else "blocks give back many times what is usual before anything is learned")
    elif growth:
        told.append(
            "activations change a hundredfold or more from the first block to the last before anything is learned"
        )
    levels = (uniform_loss(case), constant_loss(case), most_constant_loss(case))
    known = loss is None or any(one is not None for one in levels)
    inputs = start is not None and start.is_fast and (start.is_mean or by_height)  # then they are likelier
    # The loss may be a sum, or a squared error of large targets; or guesses are unsure, which a few steps mend.
    remark = inputs or by_height or (loss is not None and not growth and _is_unsure(case))
    yield Finding(
        "bad-initialization",
        "info" if remark else "warning",
        0.3 if inputs else 0.5 if remark else 0.9 if known and len(evidence) > 1 else 0.8 if known else 0.6,
        1,
        " and ".join(told)
        + ": the weights are drawn at the wrong scale"
        + ("" if known else ", or numbers that it is fed with or has to predict are far from unit scale"),
        tuple(evidence),
        remedies=tuple(_remedies(case)),
    )


def _first_loss(case: Case, curve: Curve | None) -> Iterator[Evidence]:
    if curve is None or len(curve) < 12:
        return
    if curve.first_step > max(2, 0.002 * case.planned_steps) and not falls_from_the_first(case, curve):
        return
    if case.counts_epochs:
        return  # the first loss is a mean over an epoch in which much was learned
    if isinstance(case.setting("task.class_weights"), Mapping):
        return  # what a guess costs is theirs
    first, uniform = float(curve.values[0]), uniform_loss(case)
    if (constant := constant_loss(case) or most_constant_loss(case)) is not None:
        inputs, trained = case.number("first_batch", "input_rms"), bool((case.fact("first_pass") or {}).get("trained"))
        again = float(curve.values[:2].min())  # a target far from others may be all that the first batch costs
        if again > OF_NUMBERS * constant and inputs is not None and inputs <= LARGE_INPUTS and not trained:
            text = f"the first loss is {format.decimal(first)}, where always saying the mean costs about 1"
            yield Evidence("train/loss", (curve.first_step, curve.first_step), first, constant, text)
        return
    added = any(case.setting(f"objective.{one}") for one in ("label_smoothing", "z_loss", "distillation.teacher"))
    text = ""
    if uniform is not None and case.setting("objective.name") in (None, "cross_entropy"):
        if first <= max(TIMES * uniform, uniform + MORE) * (1.25 if added else 1.0):
            return
        text = f"the first loss is {format.decimal(first)}, where guessing costs {format.decimal(uniform)} (ln V)"
    else:
        accuracy = case.history.has("train/accuracy") or case.evaluated("validation/accuracy") is not None
        perplexity = case.history.has("validation/perplexity") or case.history.has("validation/bits_per_byte")
        if case.fact("task") is not None or not (accuracy or perplexity):
            return
        if is_summed(case, curve):
            return
        # How often the first answers are right tells nothing: frequent words are guessed at once.
        uniform = math.log(most_classes(case))
        if first <= uniform + MORE:
            return
        text = (
            f"the first loss is {format.decimal(first)}, and guessing among {math.exp(uniform):,.0f} classes costs "
            f"{format.decimal(uniform)}; more there are not"
        )
    if not comes_down(case, curve, uniform) and not is_as_high_judged(case, curve, uniform):
        return
    yield Evidence("train/loss", (curve.first_step, curve.first_step), first, uniform, text)


def _growth(case: Case) -> Iterator[Evidence]:
    """How activations change from the first block to the last, before step 1 or in the first window."""
    scales = case.fact("first_pass") or {}
    if scales.get("trained"):
        return
    if "activation_growth" in scales:
        growth = case.number("first_pass", "activation_growth")
        if growth is None:
            text = "before step 1 activations leave the range of numbers from the first block to the last"
            yield Evidence("facts.first_pass", (0, 0), math.inf, 10.0, text)
            return
        if not 1 / GROWS < growth < GROWS:
            text = f"before step 1 activations change {growth:.3g}-fold from the first block to the last"
            yield Evidence("facts.first_pass", (0, 0), growth, 1.0, text)
        return
    steps, names, rms_WL = case.history.layers.values("activation_rms")
    if not len(steps) or len(names) < 3 or int(steps[0]) > 0.1 * case.planned_steps:
        return
    first, last = float(rms_WL[0, 0]), float(rms_WL[0, -1])
    if not (np.isfinite(first) and np.isfinite(last)) or first <= 0:
        return
    if not 1 / GROWS < last / first < GROWS:
        text = f"in the first window activations change {last / first:.3g}-fold from the first block to the last"
        yield Evidence("layer/*/activation_rms", (1, int(steps[0])), last / first, 1.0, text)


def _is_unsure(case: Case) -> bool:
    """Whether logits are known to deviate as little as those of a sound model may before step 1."""
    deviation, scales = case.number("first_pass", "logits_std"), case.fact("first_pass") or {}
    if deviation is None or uniform_loss(case) is None or scales.get("trained") or (enlarges(case) or 0.0) > ENLARGES:
        return False
    return deviation <= SURE_LOGITS


def _logits(case: Case) -> Iterator[Evidence]:
    deviation = None if (case.fact("first_pass") or {}).get("trained") else case.number("first_pass", "logits_std")
    if deviation is not None and deviation > SURE_LOGITS:
        text = f"before step 1 logits have a deviation of {deviation:.3g}: guesses are sure of themselves"
        yield Evidence("facts.first_pass", (0, 0), deviation, 1.0, text)


def _course(case: Case, curve: Curve | None, signs: list[Evidence]) -> Iterator[Evidence]:
    loss = next((item for item in signs if item.metric == "train/loss"), None)
    if curve is None or loss is None or loss.expected is None:
        return
    below = np.flatnonzero(curve.smoothed < 1.1 * loss.expected)
    if len(below):
        step = int(curve.steps[below[0]])
        text = f"what was drawn at random was unlearned by step {step:,}"
        yield Evidence("train/loss", (curve.first_step, step), float(curve.smoothed[below[0]]), loss.expected, text)


def _remedies(case: Case) -> Iterator[Remedy]:
    if case.target == "trimtab" and "trained" not in (case.fact("first_pass") or {}):  # a model of ours
        deviation = case.setting("model.initialization.standard_deviation")
        if isinstance(deviation, int | float) and deviation > 0.03:
            usual = 0.1 if case.setting("model.name") == "mlp" else 0.02
            setting = {"model.initialization.standard_deviation": usual}
            yield Remedy(f"draw weights with a deviation of {usual}", "trimtab", setting)
        if case.setting("model.initialization.depth_scaled") is False:
            yield Remedy(
                "divide what residual branches begin with by the depth",
                "trimtab",
                {"model.initialization.depth_scaled": True},
            )
        return
    yield Remedy(
        "draw weights at the scale of 0.02, or He's or Xavier's; embeddings, too, where the head shares them (the "
        "default of torch's Embedding is 1)"
    )
