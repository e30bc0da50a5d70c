"""nan-loss: the loss or the gradient is not a number, or infinite.

Looks for: losses that are NaN or infinite, in training or validation; updates that were skipped for that reason.
    With fp16 a skipped update alone is the loss scale being found, and no fault.
Why it matters: whatever such a gradient touches is lost for good; a trainer that masks it hides a dead run.
Evidence: the first such step, the loss before it, and whether the gradient had grown before.
Remedy: a lower learning rate or more warm-up where the gradient grew first; clipping; bf16 in place of fp16; otherwise
    look for log(0), division by zero or a damaged sample at that step.
False alarms: none for values; a log that filters NaN (Hugging Face's default) cannot show them.
Source: own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.curves import Curve
from trimtab.doctor.finding import Evidence, Finding, Remedy
from trimtab.doctor.remedies import lower_rate
from trimtab.doctor.undone import undone
from trimtab.runs import format
from trimtab.runs.history import Series

GROWN = 10.0
"""The gradient has grown by so much before the first NaN: then it exploded."""


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
    growth = _growth(history.get("grad_norm"), onset)
    if growth is not None and growth[0] >= GROWN:
        factor, first, norm = growth
        evidence.append(
            Evidence(
                "grad_norm", (first, onset), norm, norm / factor, f"the gradient had grown {factor:,.0f}-fold before"
            )
        )
    evidence += _samples(case)
    bad_at_end = not np.isfinite(loss.last)
    grave = bad_at_end or lost >= max(10, 0.01 * loss.num_samples) or _failed(case)
    before = Curve.of(loss)
    level = f" after {format.decimal(before.at(onset - 1))} just before" if before and before.first_step < onset else ""
    exploded = growth is not None and growth[0] >= GROWN
    why = "the gradient exploded first" if exploded else "the gradient had not grown before, so it came at once"
    remedies = [lower_rate(case)] if exploded else []
    remedies.append(
        Remedy(f"look at the data and at custom layers at step {onset:,}: log(0), division by zero, a damaged sample")
    )
    if case.setting("training.precision.name") == "fp16":
        remedies.insert(0, Remedy("train in bf16, which has the range of fp32: training.precision={name: bf16}"))
    clip = case.setting("gradients.clip.name")
    if exploded and clip == "none":
        remedies.insert(0, Remedy("clip the gradient to norm 1", case.target, {"gradients.clip.name": "norm"}))
    yield Finding(
        "nan-loss",
        "error" if grave else "warning",
        0.97,
        onset,
        f"the loss or gradient is not finite from step {onset:,} on{level}; {why}"
        if grave
        else f"the loss or gradient was not finite at step {onset:,}, and the run went on; {why}",
        tuple(evidence),
        remedies=tuple(remedies),
    )


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
    """How much the gradient grew in the stretch before `onset`, where that began, and how large it became."""
    curve = Curve.of(norms)
    if curve is None or (part := curve.between(curve.first_step, onset - 1)) is None or len(part) < 8:
        return None
    usual = float(np.median(part.values))
    newest = float(part.values[-3:].max())
    return (newest / usual, int(part.steps[-3]), newest) if usual > 0 else None


def _failed(case: Case) -> bool:
    ended = case.history.ended
    return ended is not None and ended.status == "failed"
