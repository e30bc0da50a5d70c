"""Logs in columns and records: JSON lines, CSV, and what frameworks keep."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .view import Row, View, neat

Writer = Callable[[View, Path, np.random.RandomState], str]
"""Writes a log into a folder, and says its name there."""


def _merged(view: View) -> list[Row]:
    """Rows of training and evaluation in the order of their steps."""
    both = [(i, 0, row) for i, row in enumerate(view.rows)]
    steps = [row["step"] for row in view.rows]
    for one in view.evaluations:
        place = max((i for i, s in enumerate(steps) if s <= one["step"]), default=0)
        both.append((place, 1, one))
    return [row for _, _, row in sorted(both, key=lambda item: item[:2])]


def _named(view: View, row: Row, step: bool = True) -> dict[str, float]:
    out = {
        view.name(k): view.value(k, v)
        for k, v in row.items()
        if k != "step" and not (math.isnan(v) and k not in ("loss", "val_loss", "grad_norm"))
    }
    return ({view.name("step"): int(row["step"])} if step else {}) | out


def _nested(flat: dict[str, float]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        if "grad_norm/" in name or "dead_fraction/" in name or "/" not in name:
            tree[name] = value
        else:
            head, _, rest = name.partition("/")
            tree.setdefault(head, {})[rest] = value
    return tree


def jsonl(view: View, place: Path, rng: np.random.RandomState) -> str:
    nested = rng.rand() < 0.5
    name = str(rng.choice(["log.jsonl", "metrics.jsonl", "train_log.jsonl", "history.jsonl"]))
    lines = [json.dumps({"config": view.config})] if view.config else []
    for row in _merged(view):
        flat = _named(view, row)
        lines.append(json.dumps(_nested(flat) if nested else flat))
    (place / name).write_text("\n".join(lines) + "\n")
    return name


def jsonl_events(view: View, place: Path, rng: np.random.RandomState) -> str:
    """One kind of line for training and one for evaluation, told apart by a word."""
    key, train, valid = [("split", "train", "val"), ("phase", "train", "eval"), ("mode", "train", "valid")][
        rng.randint(3)
    ]
    plain = {
        "loss": "loss",
        "val_loss": "loss",
        "accuracy": "accuracy",
        "val_accuracy": "accuracy",
        "lr": "lr",
        "grad_norm": "grad_norm",
    }
    lines = []
    for row in _merged(view):
        of = valid if "val_loss" in row else train
        rest = {
            plain.get(k, view.name(k)): view.value(k, v)
            for k, v in row.items()
            if k != "step" and not (math.isnan(v) and "acc" in k)
        }
        lines.append(json.dumps({key: of, "step": int(row["step"]), **rest}))
    (place / "events.jsonl").write_text("\n".join(lines) + "\n")
    return "events.jsonl"


def _table(path: Path, header: list[str], rows: list[list[Any]], delimiter: str = ",") -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def csv_dense(view: View, place: Path, rng: np.random.RandomState) -> str:
    """One row a logged step; validation where it was, or the last one repeated."""
    repeat = rng.rand() < 0.25
    told = [k for k in ("val_loss", "val_accuracy", "eval_time") if view.evaluations and k in view.evaluations[0]]
    keys = [*view.columns, *view.layers]
    rows, last, waiting = [], {}, list(view.evaluations)
    for i, row in enumerate(view.rows):
        found: Row = {}
        while waiting and (waiting[0]["step"] <= row["step"] or i == len(view.rows) - 1):
            found = waiting.pop(0)
        last = found or (last if repeat else {})
        cells = [view.value(k, row[k]) for k in keys] + [
            view.value(k, last[k]) if last and not (math.isnan(last[k]) and "acc" in k) else "" for k in told
        ]
        rows.append([int(row["step"]), *cells])
    tab = rng.rand() < 0.2
    name = "log.tsv" if tab else str(rng.choice(["log.csv", "train_log.csv", "results.csv", "progress.csv"]))
    _table(place / name, [view.name(k) for k in ("step", *keys, *told)], rows, "\t" if tab else ",")
    return name


def csv_long(view: View, place: Path, rng: np.random.RandomState) -> str:
    """One number a row, with its name beside it."""
    rows = [
        [int(row["step"]), view.name(k), view.value(k, v)]
        for row in _merged(view)
        for k, v in row.items()
        if k != "step" and not (math.isnan(v) and k not in ("loss", "val_loss"))
    ]
    _table(place / "scalars.csv", ["step", str(rng.choice(["metric", "tag", "name"])), "value"], rows)
    return "scalars.csv"


def lightning(view: View, place: Path, rng: np.random.RandomState) -> str:
    """metrics.csv of Lightning: sparse rows, the rate and validation in rows of their own."""
    names = {
        "loss": "train_loss_step" if rng.rand() < 0.4 else "train_loss",
        "lr": str(rng.choice(["lr-AdamW", "lr-Adam", "lr-SGD"])),
        "val_loss": "val_loss",
        "val_accuracy": "val_acc",
        "accuracy": "train_acc",
    }
    keys = [k for k in view.columns if k not in ("epoch", "elapsed")] + view.layers
    told = [k for k in ("val_loss", "val_accuracy", "eval_time") if view.evaluations and k in view.evaluations[0]]
    header = sorted({"epoch", "step", *(names.get(k, view.name(k)) for k in (*keys, *told))})
    rows = []
    for row in _merged(view):
        parts = [{k: row[k]} for k in ("lr",) if k in row] + [
            {k: v for k, v in row.items() if k not in ("step", "epoch", "elapsed", "lr")}
        ]
        for part in parts:
            cells = {
                names.get(k, view.name(k)): view.value(k, v)
                for k, v in part.items()
                if not (math.isnan(v) and "acc" in k)
            }
            cells |= {"step": int(row["step"]) - 1, "epoch": int((row["step"] - 1) // view.per_epoch)}
            rows.append([cells.get(k, "") for k in header])
    _table(place / "metrics.csv", header, rows)
    return "metrics.csv"


def wandb(view: View, place: Path, rng: np.random.RandomState) -> str:
    """What a chart of W&B exports."""
    run = str(rng.choice(["fluent-sun-12", "baseline", "exp-3", "rosy-dew-41"]))
    keys = [*[k for k in view.columns if k not in ("elapsed",)], *view.layers]
    told = [k for k in ("val_loss", "val_accuracy", "eval_time") if view.evaluations and k in view.evaluations[0]]
    header, every = ["Step"], [*keys, *told]
    for k in every:
        header += [f"{run} - {view.name(k)}", f"{run} - {view.name(k)}__MIN", f"{run} - {view.name(k)}__MAX"]
    by_step: dict[int, Row] = {}
    for row in _merged(view):
        by_step.setdefault(int(row["step"]), {}).update(row)
    rows = []
    for step, row in sorted(by_step.items()):
        cells: list[Any] = [step]
        for k in every:
            cells += (
                [view.value(k, row[k])] * 3 if k in row and not (math.isnan(row[k]) and "acc" in k) else ["", "", ""]
            )
        rows.append(cells)
    _table(place / "wandb_export_2026-03-04T10_11_12.123+01_00.csv", header, rows)
    return "wandb_export_2026-03-04T10_11_12.123+01_00.csv"


def huggingface(view: View, place: Path, rng: np.random.RandomState) -> str:
    """trainer_state.json."""
    history = []
    for row in _merged(view):
        epoch = neat(row["step"] / view.per_epoch)
        if "val_loss" in row:
            more = (
                {"eval_accuracy": neat(row["val_accuracy"])}
                if "val_accuracy" in row and not math.isnan(row["val_accuracy"])
                else {}
            )
            seconds = neat(row.get("eval_time", 0.4 + 0.1 * rng.rand()))
            history.append(
                {
                    "epoch": epoch,
                    "eval_loss": neat(row["val_loss"]),
                    **more,
                    "eval_runtime": seconds,
                    "eval_samples_per_second": neat(300 / seconds),
                    "step": int(row["step"]),
                }
            )
        else:
            more = {"grad_norm": neat(row["grad_norm"])} if "grad_norm" in row else {}
            history.append(
                {
                    "epoch": epoch,
                    **more,
                    "learning_rate": neat(row.get("lr", 0.0)),
                    "loss": neat(row["loss"]),
                    "step": int(row["step"]),
                }
            )
    if all("lr" not in row for row in view.rows):
        for one in history:
            one.pop("learning_rate", None)
    if view.steps == view.planned and "step_time" in view.columns:
        total = float(np.mean([row["step_time"] for row in view.rows])) * view.steps + sum(
            row.get("eval_time", 0.0) for row in view.evaluations
        )
        history.append(
            {
                "epoch": neat(view.steps / view.per_epoch),
                "step": view.steps,
                "total_flos": 0.0,
                "train_loss": neat(float(np.mean([row["loss"] for row in view.rows]))),
                "train_runtime": neat(total),
                "train_steps_per_second": neat(view.steps / total),
            }
        )
    state = {
        "best_metric": None,
        "best_model_checkpoint": None,
        "epoch": neat(view.steps / view.per_epoch),
        "eval_steps": 50,
        "global_step": view.steps,
        "is_hyper_param_search": False,
        "is_local_process_zero": True,
        "is_world_process_zero": True,
        "log_history": history,
        "logging_steps": view.every,
        "max_steps": view.planned,
        "num_train_epochs": math.ceil(view.planned / view.per_epoch),
        "save_steps": 500,
        "total_flos": 0.0,
        "train_batch_size": 16,
        "trial_name": None,
        "trial_params": None,
    }
    (place / "trainer_state.json").write_text(json.dumps(state, indent=1))
    return "trainer_state.json"


def _by_epoch(view: View) -> list[Row]:
    """One row an evaluation: the mean of what was trained since."""
    out, begin = [], 0.0
    for one in view.evaluations:
        part = [row for row in view.rows if begin < row["step"] <= one["step"]] or view.rows[-1:]
        means = {
            k: float(np.mean([row[k] for row in part]))
            for k in part[0]
            if k not in ("step", "epoch", "lr", "memory", "elapsed")
        }
        out.append({**means, **{k: part[-1][k] for k in ("lr", "memory") if k in part[-1]}, **one})
        begin = one["step"]
    return out


def keras(view: View, place: Path, rng: np.random.RandomState) -> str:
    """What Keras' CSVLogger writes, one row an epoch."""
    names = {
        "loss": "loss",
        "accuracy": "accuracy",
        "lr": "learning_rate",
        "val_loss": "val_loss",
        "val_accuracy": "val_accuracy",
    }
    rows = _by_epoch(view)
    keys = [
        k
        for k in (
            "accuracy",
            "lr",
            "loss",
            "val_accuracy",
            "val_loss",
            "grad_norm",
            "step_time",
            "data_time",
            "pace",
            "memory",
            "loss_scale",
        )
        if k in rows[0] and not all(math.isnan(row[k]) for row in rows)
    ]
    table = [[i, *(view.value(k, row[k]) for k in keys)] for i, row in enumerate(rows)]
    _table(place / "training.csv", ["epoch", *(names.get(k, view.name(k)) for k in keys)], table)
    return "training.csv"


def history_json(view: View, place: Path, rng: np.random.RandomState) -> str:
    """history.history as JSON: lists by name."""
    rows = _by_epoch(view)
    names = {"loss": "loss", "accuracy": "accuracy", "lr": "lr"}
    keys = [
        k
        for k in ("loss", "accuracy", "val_loss", "val_accuracy", "lr")
        if k in rows[0] and not all(math.isnan(row[k]) for row in rows)
    ]
    (place / "history.json").write_text(json.dumps({names.get(k, k): [neat(row[k]) for row in rows] for k in keys}))
    return "history.json"
