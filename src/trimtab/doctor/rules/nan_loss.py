"""nan-loss: the loss or the gradient is not a number, or infinite.

Looks for: losses that are NaN or infinite, in training or validation; updates that were skipped for that reason.
    With fp16 a skipped update alone is the loss scale being found, and no fault.
    In logs of other trainers gradient norms alone, of few steps, are a remark where the loss stays finite and falls.
Why it matters: whatever such a gradient touches is lost for good; a trainer that masks it hides a dead run.
Evidence: the first such step, the loss before it, whether the gradient or the loss had grown before (a divergence too
    short to be seen as one), and whether the learning rate applied until then is one that no model of the size bears.
Remedy: a lower learning rate or more warm-up where the gradient or the loss grew first, or the rate is far too high;
    clipping; bf16 in place of fp16; otherwise look for log(0), division by zero or a damaged sample at that step.
False alarms: none for values; a log that filters NaN (Hugging Face's default) cannot show them. A gradient that was no
    number and was applied leaves no loss that is one: where that stays finite the step was skipped, as fp16 skips them.
Source: own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.medians import median
from trimtab.doctor.reading.undone import undone
from trimtab.doctor.remedies import brain_float, change, lower_rate, sound_rate, uses_adam
from trimtab.runs import format
from trimtab.runs.history import Series

GROWN = 10.0
"""The gradient has grown by so much before the first NaN: then it exploded."""
ABSURD = 30.0
"""So many times the usual rate of Adam's kind is blamed by itself; ten times is high, and still trained with."""
LEFT = 3.0
"""So many times its lowest, and well above where it began, just before the first NaN: then the loss diverged."""
RISEN = 1.5
"""So many times what it was at its lowest, just before the first NaN: then the loss left, it did not break off."""

SKIPPED, HALVINGS = 0.1, 32
"""Of all steps, that fp16 skips at most while it finds its scale, and whenever it tries a larger one; and of the first,
from 2^32 on."""


def check(case: Case) -> Iterator[Finding]:
    """An error when the run ended so or many steps were lost, else a warning."""
    yield from undone(case, "nan-loss")
    history = case.history
    loss = case.loss()
    assert loss is not None
    evidence: list[Evidence] = []
    onsets: list[int] = []
    lost = 0
    for name in ("train/loss", "grad_norm", "validation/loss"):
        series = case.evaluated(name)
        if series is None or series.first_bad_step is None or (name == "grad_norm" and history.has("loss_scale")):
            continue
        first, last = series.first_bad_step, series.last_bad_step or series.first_bad_step
        onsets.append(first)
        lost = max(lost, series.num_bad)
        what = "evaluation" if name.startswith("validation") else "step"
        evidence.append(
            Evidence(
                name,
                (first, last),
                float("nan"),
                None,
                f"{name} is not finite in {series.num_bad:,} of {series.num_samples:,} {what}s, first at {first:,}",
            )
        )
    if not onsets:
        return
    onset = min(onsets)
    norms, before = history.get("grad_norm"), _before(loss, onset)
    growth = _growth(norms, onset)
    if growth is not None and growth[0] >= GROWN:
        factor, first, norm = growth
        evidence.append(
            Evidence(
                "grad_norm", (first, onset), norm, norm / factor, f"the gradient had grown {factor:,.0f}-fold before"
            )
        )
    exploded = growth is not None and growth[0] >= GROWN
    too_high = None if exploded else rate_too_high(case, onset)
    if too_high is not None:
        evidence += too_high
    diverged = not exploded and too_high is None and _diverged(before)
    if before is not None and (diverged or too_high is not None):
        evidence += _risen(before)
    evidence += _samples(case)
    bad_at_end = not np.isfinite(loss.last)
    grave = bad_at_end or lost >= max(10, 0.01 * loss.num_samples) or _failed(case)
    level = f" after {format.decimal(float(before.values[-1]))} just before" if before is not None else ""
    why = "the gradient had not grown before, so it came at once"
    if growth is None:
        why = "whether the gradient had grown before is not known" if norms is None else "it came at once"
    if exploded:
        why = "the gradient exploded first"
    elif diverged:
        why = "the loss had diverged before"
    elif too_high is not None:
        why = "the learning rate is far too high"
    remedies = [lower_rate(case, 0.3 if exploded else 0.1, onset=onset)] if exploded or diverged else []
    if too_high is not None and (rate := sound_rate(case)) is not None:
        remedies.append(change(case, f"lower the learning rate to {rate:.1g}", learning_rate=float(f"{rate:.1g}")))
    skipped = not exploded and too_high is None and _are_skipped(case, loss, evidence, lost)
    if skipped:
        why = "the loss stayed finite and fell, as where fp16 skips such steps while it finds its scale"
    elif too_high is None and not diverged:
        where = f"look at the data and at custom layers at step {onset:,}: log(0), division by zero, a damaged sample"
        remedies.append(Remedy(where))
    if case.setting("training.precision.name") == "fp16":
        remedies.insert(0, brain_float(case))
    clip = case.setting("gradients.clip.name")
    if (exploded or diverged) and clip == "none":
        remedies.insert(0, Remedy("clip the gradient to norm 1", case.target, {"gradients.clip.name": "norm"}))
    yield Finding(
        "nan-loss",
        "info" if skipped else "error" if grave else "warning",
        0.5 if skipped else 0.97,
        onset,
        f"the loss or gradient is not finite from step {onset:,} on{level}; {why}"
        if grave and not skipped
        else f"the loss or gradient was not finite at step {onset:,}, and the run went on; {why}",
        tuple(evidence),
        remedies=tuple(remedies),
    )


def _are_skipped(case: Case, loss: Series, evidence: list[Evidence], lost: int) -> bool:
    """Whether gradients alone are no numbers, in few steps, of another trainer whose losses are, and fall: it skipped
    them, as no weights would be numbers otherwise."""
    norms, curve = case.history.get("grad_norm"), Curve.of(loss)
    if case.target == "trimtab" or norms is None or curve is None or any(e.metric != "grad_norm" for e in evidence):
        return False
    steps, values = norms.raw()
    found = not np.isfinite(values[:lost]).any() and steps[0] <= 1  # the first of all, where the scale is found
    few = lost <= SKIPPED * norms.num_samples or (found and lost <= HALVINGS)
    return bool(np.isfinite(norms.last)) and few and curve.end < curve.start


def _samples(case: Case) -> Iterator[Evidence]:
    """The samples of the first step that was told of."""
    for alert in case.history.alerts:
        if alert.kind == "non_finite_step" and (samples := alert.details.get("samples")):
            step, named = int(alert.details["step"]), ", ".join(str(sample) for sample in samples[:8])
            more = f" and {len(samples) - 8} more" if len(samples) > 8 else ""
            text = f"step {step:,} was trained on samples {named}{more} of the training set"
            yield Evidence("train/loss", (step, step), None, None, text)
            return


def _growth(norms: Series | None, onset: int) -> tuple[float, int, float] | None:
    """How much the gradient grew in the stretch before `onset`, where that began, and how large it became.

    Of fewer than 8 values the first is what it was: a run that dies in its first steps has no more.
    """
    curve = Curve.of(norms)
    if curve is None or (part := curve.between(curve.first_step, onset - 1)) is None or len(part) < 2:
        return None
    usual = median(part.values) if len(part) >= 8 else float(part.values[0])
    newest = part.values[-3:] if len(part) >= 8 else part.values[1:]
    return (float(newest.max()) / usual, int(part.steps[-len(newest)]), float(newest.max())) if usual > 0 else None


def rate_too_high(case: Case, onset: int) -> list[Evidence] | None:
    """What speaks for a rate that no such model bears; None where it is bearable, or nothing is known of it."""
    usual, rates = sound_rate(case), Curve.of(case.history.get("learning_rate"))
    if usual is None or not uses_adam(case) or rates is None:
        return None
    # The rate of the failing step itself has not acted on the loss before it.
    part = rates.between(rates.first_step, max(onset - 1, rates.first_step))
    if part is None or (highest := float(part.values.max())) < ABSURD * usual:
        return None
    at = int(part.steps[part.values.argmax()])
    told = f"the learning rate reached {highest:.2g} at step {at:,}, {highest / usual:,.0f} times what is usual"
    return [Evidence("learning_rate", (at, onset), highest, usual, told + " for a model of this size")]


def _before(loss: Series, onset: int) -> Curve | None:
    curve = Curve.of(loss)
    return curve.between(curve.first_step, onset - 1) if curve is not None else None


def _diverged(before: Curve | None) -> bool:
    """Whether the last finite loss was far above all that the run had: it left, and only then was no number."""
    if before is None or len(before) < 2:
        return False
    lowest, last = float(before.values.min()), float(before.values[-1])
    return last > LEFT * abs(lowest) and last > RISEN * abs(before.start)


def _risen(before: Curve) -> Iterator[Evidence]:
    lowest, last = float(before.values.min()), float(before.values[-1])
    if len(before) >= 2 and last > RISEN * lowest > 0:
        text = f"the loss had risen from {format.decimal(lowest)} to {format.decimal(last)} before"
        yield Evidence("train/loss", (before.first_step, before.last_step), last, lowest, text)


def _failed(case: Case) -> bool:
    ended = case.history.ended
    return ended is not None and ended.status == "failed"
