# ruff: noqa: E501
"""What of a run is logged: which columns, how often, averaged how, under which names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .train import Trace

Row = dict[str, float]

NAMES: dict[str, tuple[str, ...]] = {
    "loss": ("loss", "train_loss", "train/loss", "training/loss", "tr_loss", "Loss/train", "trainLoss", "train_nll"),
    "accuracy": ("acc", "train_acc", "train/accuracy", "training/accuracy", "tr_acc", "Accuracy/train", "trainAcc", "train_accuracy"),
    "lr": ("lr", "learning_rate", "train/lr", "optim/lr", "cur_lr", "LR", "learningRate", "lr"),
    "grad_norm": ("grad_norm", "gradient_norm", "train/grad_norm", "optim/grad_norm", "gnorm", "grad_norm", "gradNorm", "total_grad_norm"),
    "val_loss": ("val_loss", "eval_loss", "val/loss", "validation/loss", "dev_loss", "Loss/val", "valLoss", "valid_nll"),
    "val_accuracy": ("val_acc", "eval_acc", "val/accuracy", "validation/accuracy", "dev_acc", "Accuracy/val", "valAcc", "valid_accuracy"),
    "step_time": ("step_time", "time_per_step", "perf/step_time", "timing/step_seconds", "iter_time", "step_time", "stepTime", "batch_time"),
    "data_time": ("data_time", "data_loading_time", "perf/data_time", "timing/data_seconds", "data_wait", "data_time", "dataTime", "dataloader_time"),
    "pace": ("tokens_per_sec", "tok_s", "perf/tokens_per_second", "throughput/tokens_per_second", "tps", "tokens/s", "tokensPerSecond", "wps"),
    "memory": ("gpu_mem_mb", "memory_mb", "system/gpu_memory_gb", "memory/allocated_gb", "max_memory_mb", "GPU memory (MB)", "gpuMemMB", "rss_mb"),
    "weights": ("weight_norm", "param_norm", "train/param_norm", "model/weight_norm", "pnorm", "param_norm", "paramNorm", "w_norm"),
    "loss_scale": ("loss_scale", "grad_scale", "amp/loss_scale", "scaler/scale", "loss_scale", "loss_scale", "lossScale", "loss_scale"),
    "eval_time": ("eval_time", "eval_runtime", "val/seconds", "validation/seconds", "dev_time", "eval_seconds", "evalTime", "valid_wall"),
    "step": ("step", "global_step", "step", "step", "iter", "step", "step", "num_updates"),
    "epoch": ("epoch", "epoch", "epoch", "train/epoch", "ep", "epoch", "epoch", "epoch"),
    "elapsed": ("time", "elapsed", "elapsed_seconds", "wall_time", "time", "time", "elapsed", "wall_time"),
}  # fmt: skip
GB = {"system/gpu_memory_gb": 1e9, "memory/allocated_gb": 1e9}


@dataclass
class View:
    """A log as columns, before a format writes it."""

    rows: list[Row]
    evaluations: list[Row]
    columns: list[str]
    style: int
    steps: int
    planned: int
    per_epoch: float
    every: int
    config: dict[str, Any] | None = None
    resumed: int = 0
    every_epoch: bool = False
    layers: list[str] = field(default_factory=list)

    def name(self, column: str) -> str:
        return NAMES[column][self.style] if column in NAMES else column

    def value(self, column: str, value: float) -> float:
        if column == "memory":
            value = value / GB.get(self.name("memory"), 1e6)
        return neat(value)


def neat(value: float) -> float:
    """Six digits."""
    return float(f"{value:.6g}")


def _averaged(values: np.ndarray, at: np.ndarray, how: str, per_epoch: float) -> np.ndarray:
    if how == "raw":
        return values[at - 1]
    if how == "ema":
        out, now = np.zeros(len(values)), values[0]
        for i, value in enumerate(values):
            now = 0.9 * now + 0.1 * value
            out[i] = now
        return out[at - 1]
    if how == "running":  # since the epoch began
        begins = ((at - 1) // per_epoch * per_epoch).astype(int)
        return np.array([values[a:b].mean() for a, b in zip(begins, at, strict=True)])
    starts = np.concatenate([[0], at[:-1]])
    return np.array([values[a:b].mean() for a, b in zip(starts, at, strict=True)])


def look(
    trace: Trace,
    rng: np.random.RandomState,
    needs: frozenset[str],
    dense: bool,
    resumed: int = 0,
    ghost: Trace | None = None,
    by_epoch: bool = False,
) -> View:
    """A drawn view of a run."""
    plan = trace.plan
    share = {
        "lr": 0.65,
        "grad_norm": 0.45,
        "accuracy": 0.5,
        "step_time": 0.2,
        "data_time": 0.12,
        "pace": 0.2,
        "memory": 0.15,
        "weights": 0.12,
        "epoch": 0.5,
        "loss_scale": 0.5 if plan.scaled else 0,
        "elapsed": 0.15,
        "eval_time": 0.1,
    }
    chosen = {c for c, p in share.items() if rng.rand() < p} | (needs & set(share))
    if "data_time" in chosen:
        chosen.add("step_time")
    if plan.kind == "reg":
        chosen.discard("accuracy")
    if resumed:
        chosen.add("elapsed")
    how = "running" if "running" in needs else str(rng.choice(["raw", "raw", "mean", "mean", "ema"]))
    every = plan.every
    if dense:
        how, every = "raw", int(rng.choice([1, 1, 2])) if plan.steps < 700 else 1
    every = max(1, min(every, trace.steps // 12))
    at = np.arange(every, trace.steps + 1, every)
    clock = np.cumsum(trace.clock["step"])
    begin = rng.uniform(2, 40)
    units = {
        "loss": _averaged(trace.loss, at, how, trace.per_epoch), "accuracy": _averaged(trace.accuracy, at, how, trace.per_epoch), "lr": trace.rate[at - 1],
        "grad_norm": trace.norm[at - 1], "weights": trace.weights[at - 1], "step_time": _averaged(trace.clock["step"], at, "mean", 1),
        "data_time": _averaged(trace.clock["data"], at, "mean", 1), "pace": _averaged(trace.clock["pace"], at, "mean", 1), "memory": trace.clock["memory"][at - 1],
        "loss_scale": trace.scale[at - 1], "epoch": at / trace.per_epoch, "elapsed": begin + clock[at - 1],
    }  # fmt: skip
    columns = [
        c
        for c in (
            "epoch",
            "loss",
            "accuracy",
            "lr",
            "grad_norm",
            "step_time",
            "data_time",
            "pace",
            "memory",
            "weights",
            "loss_scale",
            "elapsed",
        )
        if c in chosen or c == "loss"
    ]
    if resumed:
        units["elapsed"] = np.where(at > resumed, units["elapsed"] - clock[resumed - 1], units["elapsed"])
    rows = [{"step": float(s), **{c: float(units[c][i]) for c in columns}} for i, s in enumerate(at)]
    layers: list[str] = []
    if "layers" in needs:
        layers = list(trace.layers)
        for name, values in trace.layers.items():
            steps, numbers = np.array([s for s, _ in values]), [v for _, v in values]
            for row in rows:
                row[name] = numbers[min(len(numbers) - 1, max(0, int(np.searchsorted(steps, row["step"]))))]
    if resumed and ghost is not None and rng.rand() < 0.6:  # the steps after the last checkpoint, which were lost
        place = int(np.searchsorted(at, resumed, side="right"))
        lost = [
            {**row, "loss": float(ghost.loss[int(row["step"]) - 1])}
            for row in rows[place : place + int(rng.randint(1, 5))]
        ]
        rows[place:place] = lost
    quiet = rng.rand() < 0.1 and not needs & {"accuracy", "eval_time", "validation"} and not by_epoch
    told = [
        "val_loss",
        *(["val_accuracy"] if "accuracy" in chosen else []),
        *(["eval_time"] if "eval_time" in chosen else []),
    ]
    evaluations = [] if quiet else [
        {k: v for k, v in (("step", float(e.step)), ("val_loss", e.loss), ("val_accuracy", e.accuracy), ("eval_time", e.seconds)) if k == "step" or k in told} for e in trace.evaluations
    ]  # fmt: skip
    config = None
    if "config" in needs or rng.rand() < 0.25:
        config = {
            "learning_rate": plan.rate,
            "lr_scheduler_type": plan.schedule,
            "warmup_steps": plan.warmup,
            "max_steps": plan.steps,
            "batch_size": plan.batch,
            "optimizer": plan.optimizer,
            "weight_decay": plan.decay,
            "seed": plan.seed % 1000,
        }
    return View(
        rows,
        evaluations,
        columns,
        int(rng.randint(8)),
        trace.steps,
        plan.steps,
        trace.per_epoch,
        every,
        config,
        resumed,
        layers=layers,
    )
