# ruff: noqa: E501
"""Logs that were printed: the manners of many programs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from .logs import (
    Writer,
    _by_epoch,
    _merged,
    csv_dense,
    csv_long,
    history_json,
    huggingface,
    jsonl,
    jsonl_events,
    keras,
    lightning,
    wandb,
)
from .view import Row, View, neat


def _config(view: View, how: str) -> list[str]:
    if view.config is None:
        return []
    if how == "args":
        return ["Namespace(" + ", ".join(f"{k}={v!r}" for k, v in view.config.items()) + ")"]
    if how == "dots":
        return [f"  {k} {'.' * (40 - len(k))} {v}" for k, v in view.config.items()]
    return [f"{k}: {v}" for k, v in view.config.items()]


def _write(place: Path, name: str, lines: list[str]) -> str:
    (place / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return name


def _joined(view: View, lines: list[str], row: Row, done: list[int], text: str) -> None:
    """A line where the run was taken up again, once, before the first step behind it."""
    if view.resumed and not done and row["step"] > view.resumed:
        lines.append(text.format(view.resumed))
        done.append(1)


def nanogpt(view: View, place: Path, rng: np.random.RandomState) -> str:
    lines = [
        *_config(view, "args"),
        f"tokens per iteration will be: {1024 * int(rng.randint(1, 40)):,}",
        f"number of parameters: {rng.uniform(0.1, 9):.2f}M",
    ]
    done: list[int] = []
    for row in _merged(view):
        _joined(view, lines, row, done, "Resuming training from out\niter_num = {}")
        if "val_loss" in row:
            near = [r["loss"] for r in view.rows if r["step"] <= row["step"]][-5:] or [view.rows[0]["loss"]]
            lines.append(f"step {row['step']:.0f}: train loss {np.mean(near):.4f}, val loss {row['val_loss']:.4f}")
        else:
            more = f", lr {row['lr']:.3e}" if "lr" in row else ""
            more += f", grad_norm {row['grad_norm']:.4f}" if "grad_norm" in row else ""
            lines.append(
                f"iter {row['step']:.0f}: loss {row['loss']:.4f}, time {1e3 * row.get('step_time', 0.05):.2f}ms, mfu {rng.uniform(20, 22):.2f}%{more}"
            )
    return _write(place, "train.out", lines)


def epochs(view: View, place: Path, rng: np.random.RandomState) -> str:
    rows, lines = _by_epoch(view), _config(view, "args")
    form = int(rng.randint(3))
    for i, row in enumerate(rows):
        right = "val_accuracy" in row and not math.isnan(row["val_accuracy"])
        rate = f"{row['lr']:.3e}" if "lr" in row else ""
        if form == 0:
            parts = (
                [f"Epoch {i + 1}/{len(rows)}", f"train loss {row['loss']:.5f}", f"val loss {row['val_loss']:.5f}"]
                + ([f"val acc {row['val_accuracy']:.4f}"] if right else [])
                + ([f"lr {rate}"] if rate else [])
            )
            lines.append(" | ".join(parts))
        elif form == 1:
            lines.append(
                f"[epoch {i:03d}] train_loss={row['loss']:.5f} val_loss={row['val_loss']:.5f}"
                + (f" val_acc={row['val_accuracy']:.4f}" if right else "")
                + (f" lr={rate}" if rate else "")
            )
        else:
            lines.append(
                f"Epoch: {i + 1:02d}, Train Loss: {row['loss']:.5f}, Val Loss: {row['val_loss']:.5f}"
                + (f", Val Accuracy: {100 * row['val_accuracy']:.2f}%" if right else "")
                + (f", LR: {rate}" if rate else "")
            )
    return _write(place, "train.log", lines)


def keras_text(view: View, place: Path, rng: np.random.RandomState) -> str:
    rows, lines = _by_epoch(view), []
    for i, row in enumerate(rows):
        right = "val_accuracy" in row and not math.isnan(row["val_accuracy"])
        many = max(1, int(view.steps / len(rows)))
        a, b = (
            (f"accuracy: {row['accuracy']:.4f} - ", f"val_accuracy: {row['val_accuracy']:.4f} - ")
            if right
            else ("", "")
        )
        rate = f" - learning_rate: {row['lr']:.4e}" if "lr" in row else ""
        lines += [
            f"Epoch {i + 1}/{len(rows)}",
            f"{many}/{many} ━━━━━━━━━━━━━━━━━━━━ {many * 0.01:.0f}s 10ms/step - {a}loss: {row['loss']:.4f} - {b}val_loss: {row['val_loss']:.4f}{rate}",
        ]
    return _write(place, "fit.txt", lines)


def tqdm(view: View, place: Path, rng: np.random.RandomState) -> str:
    lines, per = _config(view, "plain"), max(1, int(view.per_epoch))
    for row in _merged(view):
        step = int(row["step"])
        if "val_loss" in row:
            right = (
                f" val_acc={row['val_accuracy']:.4f}"
                if "val_accuracy" in row and not math.isnan(row["val_accuracy"])
                else ""
            )
            lines.append(f"step {step} val_loss={row['val_loss']:.4f}{right}")
        else:
            share = step / view.planned
            bar = "█" * int(share * 10) + " " * (10 - int(share * 10))
            more = f", lr={row['lr']:.2e}" if "lr" in row else ""
            lines.append(
                f"Training: {100 * share:3.0f}%|{bar}| {step}/{view.planned} [{step // 60:02d}:{step % 60:02d}<{(view.planned - step) // 60:02d}:{(view.planned - step) % 60:02d}, {rng.uniform(5, 6):.2f}it/s, loss={row['loss']:.4f}{more}]"
            )
    return _write(place, f"stderr_{per}.log", lines)


def megatron(view: View, place: Path, rng: np.random.RandomState) -> str:
    lines, done = _config(view, "dots"), []
    batch = int(rng.choice([16, 64, 256]))
    for row in _merged(view):
        step = int(row["step"])
        _joined(view, lines, row, done, "  successfully loaded checkpoint from ckpt at iteration {}")
        if "val_loss" in row:
            dash = "-" * 90
            lines += [
                dash,
                f" validation loss at iteration {step} | lm loss value: {row['val_loss']:.6E} | lm loss PPL: {math.exp(min(20, row['val_loss'])) if math.isfinite(row['val_loss']) else float('nan'):.6E} | ",
                dash,
            ]
            continue
        parts = [
            f" iteration {step:8d}/{view.planned:8d}",
            f"consumed samples: {step * batch:12d}",
            f"elapsed time per iteration (ms): {1e3 * row.get('step_time', 0.1):.1f}",
        ]
        parts += [f"learning rate: {row['lr']:.6E}"] if "lr" in row else []
        parts += [f"global batch size: {batch:5d}", f"lm loss: {row['loss']:.6E}"]
        parts += [f"loss scale: {row['loss_scale']:.1f}"] if "loss_scale" in row else []
        parts += [f"grad norm: {row['grad_norm']:.3f}"] if "grad_norm" in row else []
        lines.append(" | ".join([*parts, "number of skipped iterations:   0", "number of nan iterations:   0 |"]))
    return _write(place, "log_rank0.txt", lines)


def logging_text(view: View, place: Path, rng: np.random.RandomState) -> str:
    """The logging module, key=value or key: value."""
    mark, sep = ("=", " ") if rng.rand() < 0.5 else (": ", ", ")
    lines, seconds, done = [], 36_000.0, []

    def stamp():
        return f"2026-03-0{1 + int(seconds // 86_400)} {int(seconds // 3600) % 24:02d}:{int(seconds // 60) % 60:02d}:{int(seconds) % 60:02d},{int(seconds * 1000) % 1000:03d}"

    lines += [f"{stamp()} INFO train: {line}" for line in _config(view, "plain")]
    last = 0.0
    for row in _merged(view):
        seconds += row.get("eval_time", 0.0) + max(0.0, row["step"] - last) * row.get("step_time", 0.05)
        last = row["step"]
        _joined(view, lines, row, done, stamp() + " INFO train: resumed from checkpoint at step {}")
        keys = [k for k in row if k not in ("step", "elapsed") and not (math.isnan(row[k]) and "acc" in k)]
        text = sep.join(
            f"{view.name(k)}{mark}{view.value(k, row[k])}" for k in keys if "/" not in view.name(k) or mark == "="
        )
        if "loss" in row and f"{view.name('loss')}{mark}" not in text:
            text = sep.join(f"{k}{mark}{view.value(k, row[k])}" for k in keys)
        if "val_loss" in row and f"{view.name('val_loss')}{mark}" not in text:
            text = sep.join(f"{k}{mark}{view.value(k, row[k])}" for k in keys)
        lines.append(f"{stamp()} INFO train: step{mark}{row['step']:.0f}{sep}{text}")
    return _write(place, "run.log", lines)


def dicts(view: View, place: Path, rng: np.random.RandomState) -> str:
    """The dicts that the Hugging Face Trainer prints; newer ones quote their numbers."""
    quote = rng.rand() < 0.4
    lines = []
    for row in _merged(view):
        epoch = neat(row["step"] / view.per_epoch)
        if "val_loss" in row:
            one = (
                {"eval_loss": neat(row["val_loss"])}
                | (
                    {"eval_accuracy": neat(row["val_accuracy"])}
                    if "val_accuracy" in row and not math.isnan(row["val_accuracy"])
                    else {}
                )
                | {"eval_runtime": neat(row.get("eval_time", 0.7)), "epoch": epoch}
            )
        else:
            one = (
                {"loss": neat(row["loss"])}
                | ({"grad_norm": neat(row["grad_norm"])} if "grad_norm" in row else {})
                | ({"learning_rate": row["lr"]} if "lr" in row else {})
                | {"epoch": epoch}
            )
        lines.append(str({k: str(v) for k, v in one.items()} if quote else one))
    return _write(place, "slurm-4711.out", lines)


def fairseq(view: View, place: Path, rng: np.random.RandomState) -> str:
    lines, done = [], []
    for row in _merged(view):
        _joined(view, lines, row, done, "Loaded checkpoint checkpoint_last.pt (num_updates {})")
        if "val_loss" in row:
            lines.append(
                f"valid | epoch {1 + int(row['step'] // view.per_epoch):03d} | loss {row['val_loss']:.4f} | num_updates {row['step']:.0f}"
            )
        else:
            more = "".join(
                f" | {n} {row[k]:.5g}"
                for k, n in (("lr", "lr"), ("grad_norm", "gnorm"), ("loss_scale", "loss_scale"), ("pace", "wps"))
                if k in row
            )
            lines.append(
                f"train_inner | epoch {1 + int(row['step'] // view.per_epoch):03d} | loss {row['loss']:.4f} | num_updates {row['step']:.0f}{more}"
            )
    return _write(place, "train.log", lines)


ALL = frozenset(
    {
        "lr",
        "grad_norm",
        "accuracy",
        "step_time",
        "data_time",
        "pace",
        "memory",
        "loss_scale",
        "eval_time",
        "layers",
        "running",
    }
)
FORMATS: dict[str, tuple[Writer, frozenset[str]]] = {
    "jsonl": (jsonl, ALL | {"config", "resume"}),
    "jsonl-events": (jsonl_events, ALL | {"resume"}),
    "csv": (csv_dense, ALL | {"resume"}),
    "csv-long": (csv_long, ALL),
    "lightning": (lightning, ALL),
    "wandb-csv": (wandb, ALL),
    "trainer-state": (
        huggingface,
        frozenset({"lr", "grad_norm", "accuracy", "eval_time", "step_time", "running", "config"}),
    ),
    "keras-csv": (keras, frozenset({"lr", "accuracy", "epochs", "running"})),
    "history-json": (history_json, frozenset({"lr", "accuracy", "epochs", "running"})),
    "nanogpt": (nanogpt, frozenset({"lr", "grad_norm", "step_time", "config", "resume", "running"})),
    "epochs": (epochs, frozenset({"lr", "accuracy", "epochs", "running", "config"})),
    "keras-text": (keras_text, frozenset({"lr", "accuracy", "epochs", "running"})),
    "tqdm": (tqdm, frozenset({"lr", "accuracy", "running", "config"})),
    "megatron": (megatron, frozenset({"lr", "grad_norm", "loss_scale", "step_time", "config", "resume"})),
    "logging": (logging_text, ALL - {"layers"} | {"config", "resume"}),
    "dicts": (dicts, frozenset({"lr", "grad_norm", "accuracy", "eval_time", "running"})),
    "fairseq": (fairseq, frozenset({"lr", "grad_norm", "loss_scale", "pace", "resume"})),
}
"""Each format, and what it can carry; `epochs` says that it has one row an epoch."""


def choose(rng: np.random.RandomState, needs: frozenset[str], dense: bool, kind: str) -> str:
    """A format that carries what is needed."""
    fit = [
        name
        for name, (_, carries) in FORMATS.items()
        if needs <= carries
        and not (dense and "epochs" in carries)
        and not (name in ("megatron", "nanogpt") and kind != "lm")
    ]
    return str(rng.choice(fit))
