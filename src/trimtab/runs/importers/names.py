"""What other trainers call the metrics: one literal table, and how a name is brought to its words before the look-up.

A name is cut into lower-case words (`trainLoss`, `train/loss`, `Train Loss` and `train_loss` are the same). A word at
its beginning or end may say whose it is (`val_loss`, `loss_eval`), how it was gathered (`train_loss_epoch`) or in
which unit (`step_time_ms`). Of several names for one metric the first in the table is taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

Side = Literal["train", "validation", "test"]

STEPS: Final[Mapping[str, int]] = {
    "trainer_global_step": 0,
    "train_global_step": 0,
    "global_step": 0,
    "optimizer_step": 0,
    "training_step": 1,
    "train_step": 1,
    "step": 1,
    "steps": 1,
    "step_num": 1,
    "global_iteration": 2,
    "global_iter": 2,
    "iteration": 2,
    "iterations": 2,
    "train_iter": 2,
    "iter": 2,
    "iters": 2,
    "n_iter": 2,
    "it": 2,
    "num_updates": 2,
    "train_num_updates": 2,
    "update": 2,
    "updates": 2,
    "batch": 3,
    "batch_idx": 3,
    "batch_index": 3,
}
"""Columns that count steps, to how soon they are preferred."""

EPOCHS: Final = ("epoch", "epochs", "current_epoch", "train_epoch", "trainer_epoch", "epoch_num", "epoch_idx")

TIMES: Final = (
    "time",
    "timestamp",
    "wall_time",
    "walltime",
    "wall_clock",
    "runtime",
    "elapsed",
    "elapsed_time",
    "elapsed_seconds",
    "relative_time",
    "relative_time_process",
    "relative_time_wall",
    "date",
    "datetime",
    "created_at",
)
"""Columns that say when, which units are guessed from."""

SIDES: Final[Mapping[str, Side]] = {
    "train": "train",
    "training": "train",
    "trn": "train",
    "tr": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "holdout": "test",
}

WRAPPERS: Final = ("metrics", "metric", "logs", "scalars", "monitoring")
"""What some put in front of all names."""

HEADINGS: Final = (
    *("optim", "optimizer", "optimizers", "optimization", "opt", "grad", "grads", "gradient", "gradients", "sched"),
    *("schedule", "scheduler", "lr_scheduler", "perf", "performance", "throughput", "speed", "time", "times", "timing"),
    *("timer", "profile", "profiler", "system", "sys", "hardware", "gpu", "cuda", "memory", "mem", "stats", "misc"),
    *("info", "debug", "diagnostics", "monitor", "global", "trainer", "model", "params", "hparams", "amp", "scaler"),
)
"""Of rooms that metrics stand in which do not depend on whose they are."""

SIDE_COLUMNS: Final = ("split", "phase", "mode", "stage", "set", "subset", "partition", "dataset", "type", "kind")
"""Columns whose words say whose the numbers of a row are."""

METRIC_COLUMNS: Final = ("metric", "metric_name", "tag", "key", "name", "variable")
"""Columns whose words name the number in `VALUE_COLUMNS`."""

VALUE_COLUMNS: Final = ("value", "val", "metric_value", "scalar")

KNOWN: Final[tuple[tuple[str, bool, tuple[str, ...]], ...]] = (
    (
        "loss",
        True,
        (
            "loss",
            "total_loss",
            "loss_total",
            "lm_loss",
            "lm_loss_value",
            "ce_loss",
            "nll_loss",
            "cross_entropy_loss",
            "cross_entropy",
            "crossentropy",
            "nll",
            "ce",
            "bce_loss",
            "mse_loss",
            "xent",
            "xent_loss",
            "xe_loss",
            "cost",
        ),
    ),
    (
        "accuracy",
        True,
        (
            "accuracy",
            "acc",
            "mean_token_accuracy",
            "token_accuracy",
            "masked_accuracy",
            "sparse_categorical_accuracy",
            "categorical_accuracy",
            "multiclass_accuracy",
            "binary_accuracy",
            "top_1_accuracy",
            "top1_accuracy",
            "accuracy_top1",
            "acc_top1",
            "acc_1",
            "acc1",
            "top1",
            "top_1",
        ),
    ),
    ("perplexity", True, ("perplexity", "ppl", "lm_loss_ppl")),
    ("bits_per_byte", True, ("bits_per_byte", "bpb")),
    ("learning_rate", False, ("learning_rate", "lr", "learningrate", "current_lr", "last_lr")),
    (
        "grad_norm",
        False,
        (
            "grad_norm",
            "gradient_norm",
            "gradnorm",
            "gnorm",
            "global_grad_norm",
            "global_gradient_norm",
            "grad_global_norm",
            "grad_norm_total",
            "total_grad_norm",
            "total_gradient_norm",
            "grad_2_0_norm_total",
            "grad_norm_before_clip",
            "grad_norm_preclip",
            "gradients_norm",
            "grads_norm",
            "norm_grad",
        ),
    ),
    (
        "tokens_per_second",
        False,
        (
            "tokens_per_second",
            "tokens_per_sec",
            "tokens_per_s",
            "tokens_second",
            "tokens_sec",
            "tokens_s",
            "toks_per_sec",
            "toks_s",
            "tok_per_sec",
            "tok_sec",
            "tok_s",
            "throughput_tokens",
            "tps",
            "wps",
        ),
    ),
    (
        "step_seconds",
        False,
        (
            "step_seconds",
            "step_time",
            "time_per_step",
            "step_duration",
            "seconds_per_step",
            "sec_per_step",
            "s_per_step",
            "iter_time",
            "iteration_time",
            "time_per_iter",
            "time_per_iteration",
            "elapsed_time_per_iteration",
            "batch_time",
            "time_per_batch",
            "update_time",
            "time_per_update",
            "step_ms",
            "ms_per_step",
            "iter_ms",
            "ms_per_iter",
            "s_it",
            "dt",
        ),
    ),
    (
        "steps_per_second",
        False,
        (
            "steps_per_second",
            "steps_per_sec",
            "steps_s",
            "iterations_per_second",
            "iterations_per_sec",
            "iters_per_sec",
            "iter_per_sec",
            "its_per_sec",
            "it_per_sec",
            "it_s",
            "batches_per_second",
            "batches_per_sec",
            "updates_per_second",
            "ups",
        ),
    ),
    (
        "data_seconds",
        False,
        (
            "data_seconds",
            "data_time",
            "data_wait",
            "data_wait_time",
            "data_loading_time",
            "data_load_time",
            "dataloader_time",
            "dataloading_time",
            "loader_time",
            "time_data",
            "data_ms",
        ),
    ),
    (
        "memory_bytes",
        False,
        (
            "memory_bytes",
            "gpu_mem",
            "gpu_memory",
            "memory",
            "mem",
            "max_memory",
            "max_mem",
            "peak_memory",
            "peak_mem",
            "peak_gpu_memory",
            "max_gpu_memory",
            "gpu_memory_allocated",
            "gpu_mem_allocated",
            "memory_allocated",
            "max_memory_allocated",
            "cuda_memory",
            "cuda_mem",
            "vram",
            "gpu_memory_used",
            "gpu_mem_used",
            "memory_used",
            "rss",
        ),
    ),
    ("loss_scale", False, ("loss_scale", "grad_scale", "scaler_scale", "amp_scale", "fp16_scale")),
    ("skipped", False, ("skipped", "step_skipped", "skipped_step")),
)
"""Ours, whether there is one for training and one for validation, and their names."""

UNITS: Final[Mapping[str, Mapping[str, float]]] = {
    "seconds": {
        "us": 1e-6,
        "ms": 1e-3,
        "msec": 1e-3,
        "milliseconds": 1e-3,
        "s": 1.0,
        "sec": 1.0,
        "secs": 1.0,
        "seconds": 1.0,
    },
    "bytes": {
        "bytes": 1.0,
        "b": 1.0,
        "kb": 1e3,
        "kib": 2.0**10,
        "mb": 1e6,
        "mib": 2.0**20,
        "gb": 1e9,
        "gib": 2.0**30,
    },
}

MEASURED_IN: Final[Mapping[str, str]] = {"step_seconds": "seconds", "data_seconds": "seconds", "memory_bytes": "bytes"}

GATHERED: Final[Mapping[str, int]] = {
    "step": 0,
    "batch": 0,
    "iter": 0,
    "raw": 0,
    "global": 1,
    "avg": 3,
    "mean": 3,
    "epoch": 4,
    "running": 6,
    "smooth": 6,
    "smoothed": 6,
    "ema": 6,
}
"""Words that say how a value was gathered, to how little it is preferred."""

DURATIONS: Final[Mapping[str, float]] = {
    "time": 1.0,
    "runtime": 1.0,
    "duration": 1.0,
    "wall": 1.0,
    "wall_time": 1.0,
    "elapsed": 1.0,
    "seconds": 1.0,
    "secs": 1.0,
    "sec": 1.0,
    "time_s": 1.0,
    "time_sec": 1.0,
    "time_seconds": 1.0,
    "ms": 1e-3,
    "time_ms": 1e-3,
}
"""What stands beside the side of an evaluation to say how long it took, to seconds."""

_RATES: Final = re.compile(
    r"(?:(?:optimizer|optim|opt|cur|curr|effective|actual|used|step)_)?(?:lr|learning_rate)(?:_.+)?"
)
_NO_RATES: Final = re.compile(r"momentum|decay|schedul|factor|mult|scale|warmup|init|max|min|target")
_GRADIENT: Final = ("grad", "grads", "gradient", "gradients", "gradnorm", "gnorm")
_NORM: Final = ("norm", "norms", "l2", "gradnorm", "gnorm", "magnitude")
_OF_ALL: Final = (
    "global",
    "total",
    "model",
    "2",
    "0",
    "before",
    "pre",
    "preclip",
    "unclipped",
    "raw",
    "clip",
    "clipping",
)
"""What may stand beside a gradient's norm while it is that of all parameters before clipping."""
_LAYER: Final = re.compile(
    r"(?:train(?:ing)?/)?"
    r"(?:layer/(?P<a>.+)/grad_norm|(?:grad(?:ient)?s?[_/]?(?:2\.0_)?norms?)/(?P<b>.+[./].+))",
    re.IGNORECASE,
)
_DEAD: Final = re.compile(
    r"(?:train(?:ing)?/)?(?:layers?/)?(?:(?P<a>.+)/)?"
    r"(?:(?:dead|inactive)_(?:(?:unit|neuron|relu)s?_)?(?:fraction|frac|ratio|share)|(?:fraction|frac)_(?:of_)?dead)"
    r"(?:/(?P<b>.+))?",
    re.IGNORECASE,
)
"""Units that give nothing, by layer: `dead_fraction/blocks.0`, `layer/blocks.0/dead_fraction`."""
_LOOKUP: Final[Mapping[str, tuple[str, bool, int]]] = {
    name: (ours, sided, rank) for ours, sided, names in KNOWN for rank, name in enumerate(names)
}
_SIDED_ONLY_IN_VALIDATION: Final = ("perplexity", "bits_per_byte")


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a foreign name means here."""

    ours: str
    rank: int = 0
    """Of several columns with one meaning the lowest is taken."""
    factor: float | None = None
    """To our unit, where the name tells it."""
    inverse: bool = False
    """Steps a second instead of seconds a step."""
    side: Side | None = None


def words(name: str) -> str:
    """The words of a name, in lower case, joined by "_"."""
    plain = re.sub(r"[KMG]i?B(?![a-z])", lambda unit: "_" + unit[0].lower(), name[:200])
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", plain)
    return "_".join(part for part in re.split(r"[^a-z0-9]+", plain.lower()) if part)


def meaning(name: str) -> Meaning | None:
    """What a metric is called here; None when the table does not know it. A test set counts as `side` "test"."""
    if (layer := _LAYER.fullmatch(name)) is not None and not words(name).endswith("total"):
        return Meaning(f"layer/{layer['a'] or layer['b']}/grad_norm")
    if "_" in name and (dead := _DEAD.fullmatch(name)) is not None:
        of = "/".join(part for part in (dead["a"], dead["b"]) if part)
        return Meaning(f"layer/{of or 'all'}/dead_fraction")
    full = words(re.sub(r"/dataloader_idx_0$", "", name))
    found = _look_up(full, None, 0)
    if found is not None:
        return found
    parts = full.split("_")
    for at in (0, -1):
        side = SIDES.get(parts[at])
        if side is not None and len(parts) > 1:
            rest = "_".join(parts[1:] if at == 0 else parts[:-1])
            if (found := _look_up(rest, side, 0)) is None and side == "train" and at == 0:
                found = _under_a_heading(re.split(r"[/.:]", name, maxsplit=1)[-1])  # `train/perf/tokens_per_second`
            return found
    if parts[0] in WRAPPERS and len(parts) > 1:
        return meaning(full.partition("_")[2])
    return _rate(full) or _gradient_norm(parts) or _under_a_heading(name)


def evaluation_seconds(name: str) -> float | None:
    """What brings a duration of evaluations to seconds (`eval_runtime`, `validation/seconds`); None for other names."""
    parts = words(name).split("_")
    while len(parts) > 1 and SIDES.get(parts[0]) == "validation":
        parts = parts[1:]
        if (factor := DURATIONS.get("_".join(parts))) is not None:
            return factor
    return None


def _look_up(name: str, side: Side | None, rank: int) -> Meaning | None:
    if name in _LOOKUP:
        ours, sided, place = _LOOKUP[name]
        return _sided(ours, sided, side, rank * 100 + place, _unit_in(name, ours))
    head, _, last = name.rpartition("_")
    if not head:
        return None
    if last in GATHERED and (found := _look_up(head, side, rank + GATHERED[last] + 1)) is not None:
        return found
    first, _, rest = name.partition("_")
    if first in GATHERED and (found := _look_up(rest, side, rank + GATHERED[first] + 1)) is not None:
        return found
    if head in _LOOKUP and not _LOOKUP[head][1]:
        ours, sided, place = _LOOKUP[head]
        factor = UNITS.get(MEASURED_IN.get(ours, ""), {}).get(last)
        return None if factor is None else _sided(ours, sided, side, rank * 100 + place, factor)
    if side is None and last in SIDES:
        return _look_up(head, SIDES[last], rank)
    return _rate(name) if side in (None, "train") else None


def _sided(ours: str, sided: bool, side: Side | None, rank: int, factor: float | None) -> Meaning | None:
    if not sided:
        if side not in (None, "train"):
            return None
        if ours == "steps_per_second":
            return Meaning("step_seconds", rank + 50, 1.0, inverse=True, side=side)
        return Meaning(ours, rank, factor, side=side)
    if side in (None, "train"):
        return None if ours in _SIDED_ONLY_IN_VALIDATION else Meaning(f"train/{ours}", rank, side=side)
    return Meaning(f"validation/{ours}", rank, side=side)


def _unit_in(name: str, ours: str) -> float | None:
    units = UNITS.get(MEASURED_IN.get(ours, ""), {})
    said = [units[word] for word in name.split("_") if word in units and word != "b"]
    return said[0] if said else None


def _gradient_norm(parts: list[str]) -> Meaning | None:
    """Norms of the gradient under other words: `gradients/l2_norm`, `grad/total_norm`, `norm/gradient`."""
    rest = [part for part in parts if part not in (*_GRADIENT, *_NORM)]
    is_one = any(part in _GRADIENT for part in parts) and any(part in _NORM for part in parts)
    fits = is_one and all(part in _OF_ALL or SIDES.get(part) == "train" for part in rest)
    return Meaning("grad_norm", 150 + len(rest)) if fits else None


def _under_a_heading(name: str) -> Meaning | None:
    """What does not depend on whose it is, under a heading of its own: `optim/grad_norm`, `perf.tokens_per_sec`.

    A loss or an accuracy under a heading may be one of several, and is left alone.
    """
    heading, _, last = re.sub(r"[.:]", "/", name).rpartition("/")
    if words(heading) not in HEADINGS:
        return None
    found = _look_up(words(last), None, 0) or _rate(words(last))
    if found is None or found.ours.startswith(("train/", "validation/")):
        return None
    return replace(found, rank=found.rank + 1000)


def _rate(name: str) -> Meaning | None:
    """Learning rates of groups and optimizers: `lr-AdamW`, `lr-AdamW/pg1`, `learning_rate/group_0`."""
    found = _RATES.fullmatch(name)
    if found is None or _NO_RATES.search(name):
        return None
    digits = re.search(r"(\d+)$", name)
    return Meaning("learning_rate", 100 + min(int(digits[1][-4:]) if digits else 0, 9999))
