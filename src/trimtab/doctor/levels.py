"""Losses that a model must come below to have learned anything."""

from __future__ import annotations

import math

from trimtab.doctor.case import Case
from trimtab.doctor.curves import Curve


def uniform_loss(case: Case) -> float | None:
    """ln V: every token, or every class, equally probable; None for tasks whose loss has no such level."""
    task = case.fact("task")
    if task in (None, "causal_lm", "masked_lm", "seq2seq"):
        size = case.number("tokenizer", "vocabulary_size")
    elif case.setting("objective.name") in (None, "cross_entropy"):
        size = len(case.fact("targets", "classes") or ())
    else:
        size = None
    return math.log(size) if size is not None and size > 1 else None


def counted_loss(case: Case, yardstick: str) -> float | None:
    """What counting reaches on the validation text: `unigram` frequencies, or `bigram` counts."""
    bits, tokens, num_bytes = (
        case.number("yardsticks", yardstick),
        case.number("yardsticks", "judged_tokens"),
        case.number("yardsticks", "judged_bytes"),
    )
    if bits is None or not tokens or not num_bytes:
        return None
    return bits * math.log(2) * num_bytes / tokens


def judged(case: Case) -> Curve | None:
    """The loss to hold against these levels: in evaluation, else in training where nothing is added to it."""
    curve = Curve.of(case.validation_loss())
    if curve is not None and len(curve) >= 2:
        return curve
    added = any(case.setting(f"objective.{one}") for one in ("label_smoothing", "z_loss", "distillation.teacher"))
    return None if added else Curve.of(case.loss())
