"""Changes that rules propose, in the words of the trainer that made the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from trimtab.doctor.case import Case
from trimtab.doctor.finding import Remedy, Target
from trimtab.doctor.reading.once import once
from trimtab.doctor.reading.planned import planned_budget, planned_schedule
from trimtab.doctor.reading.rates import usual_rate
from trimtab.runs.metrics import selection_direction

NAMES: Final[Mapping[str, Mapping[Target, str]]] = {
    "learning_rate": {
        "trimtab": "optimizer.learning_rate",
        "huggingface": "learning_rate",
        "lightning": "lr",
        "nanogpt": "learning_rate",
        "megatron": "--lr",
        "fairseq": "--lr",
        "mmengine": "optim_wrapper.optimizer.lr",
        "ultralytics": "lr0",
        "keras": "learning_rate",
        "text": "lr",
    },
    "warmup": {"trimtab": "schedule.warmup", "huggingface": "warmup_ratio", "megatron": "--lr-warmup-fraction"},
    "warmup_steps": {"nanogpt": "warmup_iters", "fairseq": "--warmup-updates"},
    "clip": {
        "trimtab": "gradients.clip.threshold",
        "huggingface": "max_grad_norm",
        "lightning": "gradient_clip_val",
        "nanogpt": "grad_clip",
        "megatron": "--clip-grad",
        "fairseq": "--clip-norm",
        "mmengine": "optim_wrapper.clip_grad.max_norm",
        "keras": "global_clipnorm",
        "text": "max_norm",
    },
    "weight_decay": {
        "trimtab": "optimizer.weight_decay",
        "huggingface": "weight_decay",
        "lightning": "weight_decay",
        "nanogpt": "weight_decay",
        "megatron": "--weight-decay",
        "fairseq": "--weight-decay",
        "mmengine": "optim_wrapper.optimizer.weight_decay",
        "ultralytics": "weight_decay",
        "keras": "weight_decay",
        "text": "weight_decay",
    },
    "accumulation": {
        "trimtab": "training.accumulation",
        "huggingface": "gradient_accumulation_steps",
        "lightning": "accumulate_grad_batches",
        "nanogpt": "gradient_accumulation_steps",
        "fairseq": "--update-freq",
        "mmengine": "optim_wrapper.accumulative_counts",
        "keras": "gradient_accumulation_steps",
    },
    "precision": {"trimtab": "training.precision.name", "lightning": "precision", "nanogpt": "dtype"},
    "bf16": {"huggingface": "bf16", "megatron": "--bf16", "fairseq": "--bf16"},
    "fp16": {"huggingface": "fp16"},
    "batch_size": {"trimtab": "training.batch_size", "huggingface": "per_device_train_batch_size"},
    "workers": {
        "trimtab": "data.prefetch",
        "huggingface": "dataloader_num_workers",
        "lightning": "num_workers",
        "megatron": "--num-workers",
        "fairseq": "--num-workers",
        "mmengine": "train_dataloader.num_workers",
        "ultralytics": "workers",
        "text": "num_workers",
    },
    "steps": {
        "trimtab": "training.steps",
        "huggingface": "max_steps",
        "lightning": "max_steps",
        "nanogpt": "max_iters",
        "megatron": "--train-iters",
        "fairseq": "--max-update",
        "mmengine": "train_cfg.max_iters",
    },
}
"""What we mean -> target -> its name for it: settings of trimtab, TrainingArguments, arguments of Lightning's Trainer
and of the optimizer and loader that it is given, variables of nanoGPT, flags of Megatron and fairseq, keys of mmengine
and Ultralytics, arguments of Keras' optimizers, and of torch where the trainer is not known.
What has no such name is said in words alone."""
BRAIN_FLOAT: Final[Mapping[Target, str]] = {"lightning": "bf16-mixed", "nanogpt": "bfloat16"}
"""What `precision` is called there, where it is not bf16."""


def change(case: Case, summary: str, **values: Any) -> Remedy:
    """A remedy that sets some of `NAMES`, in the words of the case's target; in a sentence alone where it has none.

    A learning rate is given as it is applied, and set as `optimizer.batch_scaling` makes that of it.
    """
    scale = _scale(case)
    if "learning_rate" in values and scale != 1.0:
        values["learning_rate"] = float(f"{values['learning_rate'] / scale:.1e}")
        summary += f" as applied, by setting {values['learning_rate']:g}"
    config = {NAMES[name][case.target]: value for name, value in values.items() if case.target in NAMES[name]}
    return Remedy(summary, case.target, config)


@once
def learning_rate_in_use(case: Case) -> float | None:
    """The configured rate as it is applied, or else the highest that was applied."""
    configured = case.setting("optimizer.learning_rate")
    if isinstance(configured, int | float) and configured > 0:
        return float(configured) * _scale(case)
    series = case.history.get("learning_rate")
    if series is None or not len(series.finite()[1]):
        return None
    peak = float(series.finite()[1].max())
    return peak if peak > 0 else None


def brain_float(case: Case) -> Remedy:
    """Train in bf16 in place of fp16."""
    told = "train in bf16, which has the range of fp32 and needs no scale"
    return change(case, told, precision=BRAIN_FLOAT.get(case.target, "bf16"), bf16=True, fp16=False)


def _scale(case: Case) -> float:
    """What is applied of the rate that is set."""
    return case.number("learning_rate", "scale") or 1.0


def scaled_rate(case: Case, factor: float) -> float | None:
    """The rate in use, or the one that stands above the log, times a factor, in one digit or two: `3e-4`."""
    rate = learning_rate_in_use(case) or case.number("learning_rate", "set")
    return None if rate is None else float(f"{rate * factor:.1e}")


def lower_rate(case: Case, factor: float = 0.3, *, onset: int | None = None) -> Remedy:
    """Lower the learning rate by `factor`: of what it had come to by the step `onset` of the trouble, where that is
    given, as a warm-up may not have been over; not below a tenth of what is usual, which is not to blame."""
    rate, applied = scaled_rate(case, factor), case.history.get("learning_rate")
    if rate is not None and onset is not None and applied is not None:
        steps, rates = applied.finite()
        if (until := steps <= onset).any() and 0.0 < (reached := float(rates[until].max())) < float(rates.max()):
            least = 0.1 * (sound_rate(case) or 0.0) if uses_adam(case) else 0.0
            rate = float(f"{max(rate * reached / float(rates.max()), min(least, rate)):.1e}")
    if rate is None:
        parts = {0.1: "a tenth", 0.3: "a third", 0.5: "half"}
        return Remedy(f"lower the learning rate to {parts.get(factor, f'{factor:g} times what it is')}")
    return change(case, f"lower the learning rate to {rate:g}", learning_rate=rate)


def warm_up(case: Case) -> Remedy:
    """Warm up over a tenth of the run, in steps where the trainer counts them."""
    steps = {} if case.counts_epochs else {"warmup_steps": max(1, round(0.1 * case.planned_steps))}
    return change(case, "warm up over a tenth of the run", warmup=0.1, **steps)


def longer_warmup(case: Case) -> list[Remedy]:
    """A warm-up over a tenth of the run, where it is shorter now, or where nothing is known of the schedule."""
    remedies = [warm_up(case)]
    if case.setting("schedule.name") is None:
        return remedies
    from trimtab.config import UnknownLengthError, rise_of, steps_of

    schedule, budget = planned_schedule(case), planned_budget(case)
    if schedule is None:
        return []
    key, rise = rise_of(schedule)
    if key != NAMES["warmup"]["trimtab"]:  # the rise of a cycle that comes again
        return []
    try:
        return remedies if steps_of(rise, budget) < steps_of(0.1, budget) else []
    except UnknownLengthError:
        return []


@once
def sound_rate(case: Case) -> float | None:
    """A rate that AdamW is usually trained with at this size, and Lion with a fifth of it; None where the size is not
    known."""
    size = case.number("parameters", "non_embedding") or case.number("parameters", "total")
    if size is None or size < 1:
        return None
    width = case.setting("model.hidden_size")
    part = OF_LION if case.fact("optimizer") == "lion" else 1.0
    return part * usual_rate(size, width if isinstance(width, int) else None)


OF_LION: Final = 0.2
"""Of AdamW's rate: a third to a tenth (Chen et al. 2023, arXiv 2302.06675)."""
MANY_EPOCHS: Final = 10.0
"""Passes over the training data, from which on these are few for the run."""


def for_little_data(case: Case) -> list[Remedy]:
    """What little data want, all together; none where they are not little, or one measure is all that is left.

    Of one measure after the other each alone falls short: where the model knows the samples by heart after a few
    passes, what is stopped in time has learned little, and what is regularized alone still turns up.
    """
    if case.target != "trimtab" or case.epochs() < MANY_EPOCHS:
        return []
    measures: dict[str, dict[str, Any]] = {}
    if case.setting("stopping.name") == "none":
        config: dict[str, Any] = {"stopping.name": "patience", "stopping.patience": 3}
        measures["the weights of the lowest validation loss"] = config
    sites = ("model.dropout.residual", "model.dropout.feed_forward")
    rates = {site: case.setting(site) for site in sites}
    if low := {site: 0.3 for site, rate in rates.items() if isinstance(rate, int | float) and rate < 0.3}:
        measures["dropout of 0.3"] = low
    if isinstance(decay := case.setting("optimizer.weight_decay"), int | float) and decay < 0.1:
        measures["a weight decay of 0.1"] = {"optimizer.weight_decay": 0.1}
    if case.fact("task") == "classification" and case.setting("objective.label_smoothing") == 0.0:
        measures["smoothed labels"] = {"objective.label_smoothing": 0.1}
    if len(measures) < 2:
        return []
    summary = f"all that little data want, as they are read {case.epochs():,.0f} times: {', '.join(measures)}"
    return [Remedy(summary, "trimtab", {key: value for config in measures.values() for key, value in config.items()})]


@once
def uses_adam(case: Case) -> bool | None:
    """Whether an optimizer of Adam's kind made the updates, which move each weight by about the rate, as do Lion, by
    its sign, and Muon, where it is scaled so; None where that is not known."""
    name = case.fact("optimizer") or case.setting("optimizer.name")
    if name is None:
        return True if case.target == "huggingface" else None  # AdamW is that trainer's default
    as_far = name == "lion" or (name == "muon" and case.setting("optimizer.scaling") == "adamw")
    return as_far or "adam" in str(name).lower()


def kept_checkpoint(case: Case, step: int) -> int | None:
    """The newest checkpoint at or before `step` that pruning has left: among the newest, or the best."""
    starts = (started.resumed_from for started in case.history.starts)
    saved = sorted({one.step for one in case.history.checkpoints} | {start for start in starts if start is not None})
    latest, num_best = case.setting("checkpoint.keep_latest"), case.setting("checkpoint.keep_best")
    kept = set(saved if latest is None else saved[-int(latest) :])
    if every := case.setting("checkpoint.keep_every"):
        kept |= {one for at, one in enumerate(saved) if one // every > (saved[at - 1] // every if at else 0)}
    metric = str(case.setting("checkpoint.metric") or "validation/loss")
    if latest is not None and num_best and (series := case.history.get(metric)) is not None:
        sign = 1.0 if selection_direction(metric) == "lower" else -1.0
        values = dict(zip(series.steps.tolist(), (sign * series.mean).tolist(), strict=True))
        judged = [one for one in saved if math.isfinite(values.get(one, math.nan))]
        kept |= set(sorted(judged, key=lambda one: (values[one], one))[: int(num_best)])
    return max((one for one in kept if one <= step), default=None)
