"""Changes that rules propose, in the words of the trainer that made the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Remedy, Target

NAMES: Final[Mapping[str, Mapping[Target, str]]] = {
    "learning_rate": {"trimtab": "optimizer.learning_rate", "huggingface": "learning_rate"},
    "warmup": {"trimtab": "schedule.warmup", "huggingface": "warmup_ratio"},
    "clip": {
        "trimtab": "gradients.clip.threshold",
        "huggingface": "max_grad_norm",
        "lightning": "gradient_clip_val",
    },
    "weight_decay": {"trimtab": "optimizer.weight_decay", "huggingface": "weight_decay"},
    "accumulation": {
        "trimtab": "training.accumulation",
        "huggingface": "gradient_accumulation_steps",
        "lightning": "accumulate_grad_batches",
    },
    "workers": {"trimtab": "data.prefetch", "huggingface": "dataloader_num_workers"},
}
"""What we mean -> target -> its name for it: settings of trimtab, TrainingArguments, arguments of Lightning's Trainer.
What has no such name (a rate in Lightning is the user's own code) is said in words alone."""


def change(case: Case, summary: str, **values: Any) -> Remedy:
    """A remedy that sets some of `NAMES`, in the words of the case's target; in a sentence alone where it has none."""
    config = {NAMES[name][case.target]: value for name, value in values.items() if case.target in NAMES[name]}
    return Remedy(summary, case.target, config)


def learning_rate_in_use(case: Case) -> float | None:
    """The configured rate, or else the highest that was applied."""
    configured = case.setting("optimizer.learning_rate")
    if isinstance(configured, int | float) and configured > 0:
        return float(configured)
    series = case.history.get("learning_rate")
    if series is None or not len(series.finite()[1]):
        return None
    peak = float(series.finite()[1].max())
    return peak if peak > 0 else None


def scaled_rate(case: Case, factor: float) -> float | None:
    """The rate in use times a factor, in one digit or two: `3e-4`."""
    rate = learning_rate_in_use(case)
    return None if rate is None else float(f"{rate * factor:.1e}")


def lower_rate(case: Case, factor: float = 0.3) -> Remedy:
    """Lower the learning rate by `factor`."""
    rate = scaled_rate(case, factor)
    if rate is None:
        return Remedy("lower the learning rate to a third", "text")
    return change(case, f"lower the learning rate to {rate:g}", learning_rate=rate)


def longer_warmup(case: Case) -> list[Remedy]:
    """A warm-up over a tenth of the run, where it is shorter now or not known."""
    now = case.setting("schedule.warmup")
    if isinstance(now, int | float) and (now if now < 1 else now / max(case.planned_steps, 1)) >= 0.1:
        return []
    return [change(case, "warm up over a tenth of the run", warmup=0.1)]


def sound_rate(case: Case) -> float | None:
    """A rate that AdamW is usually trained with at this size; None where the size is not known.

    A yardstick, no bound. Narrow models bear more: their rate goes with one over the width.
    Source: Kaplan et al. 2020, arXiv 2001.08361, equation D.1: 0.003239 - 0.0001395 ln N, N parameters without
    embeddings; Yang et al. 2022, arXiv 2203.03466, table 8 for the width; that both meet at a width of 60 is own.
    """
    size = case.number("parameters", "non_embedding") or case.number("parameters", "total")
    if size is None or size < 1:
        return None
    width = case.setting("model.hidden_size")
    narrow = 0.1 / width if isinstance(width, int) and width > 0 else 0.0
    return max(0.003239 - 0.0001395 * math.log(size), narrow, 1e-4)


def uses_adam(case: Case) -> bool | None:
    """Whether an optimizer of Adam's kind made the updates; None where that is not known."""
    name = case.fact("optimizer") or case.setting("optimizer.name")
    if name is None:
        return True if case.target == "huggingface" else None  # AdamW is that trainer's default
    return "adam" in str(name).lower()
