"""How different people write down the same run."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

from examiner.learner import Row
from examiner.recipe import BY_EPOCH, Recipe

NAMES = (
    {
        "step": "update",
        "loss": "loss",
        "vloss": "holdout_loss",
        "acc": "hit_rate",
        "vacc": "holdout_accuracy",
        "lr": "lr",
        "gnorm": "gnorm",
        "dt": "sec_per_it",
        "data": "data_wait_s",
        "mem": "rss_mb",
    },
    {
        "step": "global_step",
        "loss": "tr_loss",
        "vloss": "dev_loss",
        "acc": "tr_acc",
        "vacc": "dev_acc",
        "lr": "learning_rate",
        "gnorm": "grad_norm",
        "dt": "step_time",
        "data": "data_time",
        "mem": "mem_mb",
    },
    {
        "step": "iteration",
        "loss": "loss/train",
        "vloss": "loss/valid",
        "acc": "accuracy/train",
        "vacc": "accuracy/valid",
        "lr": "optim/lr",
        "gnorm": "optim/grad_norm",
        "dt": "time/step",
        "data": "time/data",
        "mem": "memory/rss_mb",
    },
    {
        "step": "it",
        "loss": "train_loss",
        "vloss": "valid_loss",
        "acc": "train_acc",
        "vacc": "valid_acc",
        "lr": "lr",
        "gnorm": "grad_l2",
        "dt": "batch_time",
        "data": "data_time",
        "mem": "memory_mb",
    },
)
START = datetime(2026, 3, 4, 9, 17, 5)


def number(value: float, digits: int = 5) -> float:
    """Rounded to significant digits."""
    return float(f"{value:.{digits}g}")


def _flat(recipe: Recipe, row: Row, names: dict[str, str]) -> dict[str, float]:
    """A row under these names, with the columns that are logged."""
    out: dict[str, float] = {names["step"]: row["step"]}
    if row["kind"] == "eval":
        out[names["vloss"]] = number(row["loss"])
        if "acc" in recipe.columns and "acc" in row:
            out[names["vacc"]] = number(row["acc"], 4)
        if "took" in recipe.columns:
            out["eval_seconds"] = number(row["took"], 4)
        return out
    out["epoch"] = round(row["epoch"], 3)
    out[names["loss"]] = number(row["loss"])
    for name in ("lr", "gnorm", "acc", "dt", "data"):
        if name in recipe.columns and name in row:
            out[names[name]] = number(row[name])
    if "mem" in recipe.columns:
        out[names["mem"]] = round(row["mem"] / 1e6, 1)
    if "scale" in recipe.columns:
        out["loss_scale"] = row["scale"]
    if "spread" in recipe.columns:
        out["input_std"] = number(row["spread"])
    if "layers" in recipe.columns:
        out |= {f"grad_norm/{name}": number(value) for name, value in row["layers"].items()}
    if "dead" in recipe.columns:
        out |= {f"dead_fraction/{name}": number(value, 4) for name, value in row["dead"].items()}
    return out


def jsonl(recipe: Recipe, rows: list[Row], place: Path) -> Path:
    names, path = NAMES[recipe.seed % len(NAMES)], place / "metrics.jsonl"
    with path.open("w") as file:
        for row in rows:
            if row["kind"] == "note":
                file.write(json.dumps({"event": "resume", "message": row["text"]}) + "\n")
            else:
                file.write(json.dumps(_flat(recipe, row, names)) + "\n")
    return path


def table(recipe: Recipe, rows: list[Row], place: Path) -> Path:
    """What W&B gives of a run's whole history."""
    names = {
        **NAMES[2],
        "step": "_step",
        "loss": "train/loss",
        "vloss": "val/loss",
        "acc": "train/acc",
        "vacc": "val/acc",
        "lr": "train/lr",
        "gnorm": "train/grad_norm",
        "dt": "perf/step_time",
        "data": "perf/data_time",
    }
    many: dict[tuple[int, int], dict[str, float]] = {}
    again = 0
    for row in rows:
        if row["kind"] == "note":
            continue
        flat = _flat(recipe, row, names)
        again = again + 1 if (row["step"], again) in many and "val/loss" in many[row["step"], again] else 0
        held = many.setdefault((row["step"], again), {"_step": row["step"], "_runtime": round(row["clock"], 3)})
        held.update(flat)
    return _csv(place / "wandb_history.csv", list(many.values()))


def charts(recipe: Recipe, rows: list[Row], place: Path) -> Path:
    """What W&B gives of charts."""
    run = Random(recipe.seed).choice(("fancy-frog-12", "baseline", "lr-sweep-3", "run_b"))
    names = {
        **NAMES[2],
        "step": "Step",
        "loss": "train/loss",
        "vloss": "eval/loss",
        "acc": "train/acc",
        "vacc": "eval/acc",
        "lr": "train/lr",
        "gnorm": "train/grad_norm",
    }
    many: dict[int, dict[str, float]] = {}
    for row in rows:
        if row["kind"] == "note":
            continue
        flat = _flat(recipe, row, names)
        flat.pop("epoch", None)
        held = many.setdefault(int(flat.pop("Step")), {"Step": row["step"]})
        for name, value in flat.items():
            for end in ("", "__MIN", "__MAX"):
                held[f"{run} - {name}{end}"] = value
    return _csv(place / "wandb_export.csv", list(many.values()))


def _csv(path: Path, many: list[dict[str, float]]) -> Path:
    heads = list(dict.fromkeys(name for one in many for name in one))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, heads, restval="")
        writer.writeheader()
        writer.writerows(many)
    return path


def epochs(recipe: Recipe, rows: list[Row]) -> list[dict[str, float]]:
    """A row for each evaluation, which is this voice's epoch."""
    out: list[dict[str, float]] = []
    since: list[Row] = []
    clock = 0.0
    for row in rows:
        if row["kind"] == "train":
            since.append(row)
        elif row["kind"] == "eval" and since:
            one = {"loss": sum(r["loss"] for r in since) / len(since)}
            if "acc" in recipe.columns and "acc" in since[0]:
                one = {"accuracy": sum(r["acc"] for r in since) / len(since), **one}
                one["val_accuracy"] = row["acc"]
            elif "mae" in row:
                one["val_mae"] = row["mae"]
            one["val_loss"] = row["loss"]
            if "lr" in recipe.columns:
                one["learning_rate"] = since[-1]["lr"]
            one["_seconds"], clock = row["clock"] - clock, row["clock"]
            out.append(one)
            since = []
    return out


def keras_csv(recipe: Recipe, rows: list[Row], place: Path) -> Path:
    many = [
        {"epoch": at, **{k: v for k, v in one.items() if k[0] != "_"}} for at, one in enumerate(epochs(recipe, rows))
    ]
    return _csv(place / "training.csv", many)


def keras_text(recipe: Recipe, rows: list[Row], place: Path) -> Path:
    path, many = place / "fit.log", epochs(recipe, rows)
    with path.open("w") as file:
        for at, one in enumerate(many, 1):
            seconds = one.pop("_seconds")
            told = " - ".join(
                f"{name}: {value:.4e}" if name == "learning_rate" else f"{name}: {value:.4f}"
                for name, value in one.items()
            )
            n = recipe.eval_every
            file.write(f"Epoch {at}/{max(len(many), math.ceil(recipe.steps / n))}\n")
            file.write(f"{n}/{n} ━━━━━━━━━━━━━━━━━━━━ {seconds:.0f}s {1000 * seconds / n:.0f}ms/step - {told}\n")
    return path


def nanogpt(recipe: Recipe, rows: list[Row], place: Path) -> Path:
    path = place / "train.log"
    with path.open("w") as file:
        file.write(f"number of parameters: {recipe.width * recipe.depth * 0.0004:.2f}M\nusing fused AdamW: False\n")
        loss = math.nan
        for row in rows:
            if row["kind"] == "note":
                file.write(f"{row['text']}\n")
            elif row["kind"] == "eval":
                file.write(f"step {row['step']}: train loss {loss:.4f}, val loss {row['loss']:.4f}\n")
            else:
                loss = row["loss"]
                extra = f", lr {row['lr']:.4e}" if "lr" in recipe.columns else ""
                extra += f", norm {row['gnorm']:.4f}" if "gnorm" in recipe.columns else ""
                file.write(f"iter {row['step']}: loss {loss:.4f}, time {row['dt'] * 1000:.2f}ms{extra}\n")
    return path


def logged(recipe: Recipe, rows: list[Row], place: Path) -> Path:
    """The logging module, with the arguments first."""
    path = place / "run.log"
    with path.open("w") as file:

        def say(clock: float, text: str) -> None:
            when = START + timedelta(seconds=clock)
            file.write(f"{when:%Y-%m-%d %H:%M:%S},{when.microsecond // 1000:03d} - INFO - train - {text}\n")

        say(
            0,
            f"Namespace(model='{recipe.net}', lr={recipe.lr}, batch_size={recipe.batch}, max_steps={recipe.steps}, "
            f"scheduler='{recipe.schedule}', warmup_steps={int(recipe.warmup * recipe.steps)}, "
            f"dropout={recipe.dropout}, "
            f"weight_decay={recipe.wd}, clip={recipe.clip}, seed={recipe.seed % 1000})",
        )
        clock = 0.0
        for row in rows:
            clock = row.get("clock", clock)
            if row["kind"] == "note":
                say(clock, row["text"])
            elif row["kind"] == "eval":
                told = f" accuracy={row['acc']:.4f}" if "acc" in recipe.columns and "acc" in row else ""
                told += f" eval_time={row['took']:.3f}s" if "took" in recipe.columns else ""
                say(clock, f"validation step={row['step']} val_loss={row['loss']:.5f}{told}")
            else:
                told = f"step={row['step']} epoch={row['epoch']:.2f} loss={row['loss']:.5f}"
                for name, word, form in (
                    ("acc", "acc", ".4f"),
                    ("lr", "lr", ".3e"),
                    ("gnorm", "grad_norm", ".4g"),
                    ("dt", "step_time", ".4f"),
                    ("data", "data_time", ".4f"),
                ):
                    if name in recipe.columns and name in row:
                        told += f" {word}={row[name]:{form}}"
                told += f" mem={row['mem'] / 1e6:.0f}MB" if "mem" in recipe.columns else ""
                told += f" loss_scale={row['scale']:g}" if "scale" in recipe.columns else ""
                say(clock, told)
    return path


def titan(recipe: Recipe, rows: list[Row], place: Path) -> Path:
    path = place / "titan.log"
    with path.open("w") as file:
        for row in rows:
            if row["kind"] == "note":
                file.write(f"[rank0]:[titan] {START:%Y-%m-%d %H:%M:%S},000 - root - INFO - {row['text']}\n")
                continue
            when = START + timedelta(seconds=row["clock"])
            head = f"[rank0]:[titan] {when:%Y-%m-%d %H:%M:%S},{when.microsecond // 1000:03d} - root - INFO - "
            gib = row.get("mem", 0) / 2**30
            if row["kind"] == "eval":
                file.write(f"{head}validate step: {row['step']:2}  loss: {row['loss']:7.4f}\n")
            else:
                norm = f"  grad_norm: {row['gnorm']:7.4f}" if "gnorm" in recipe.columns else ""
                file.write(
                    f"{head}step: {row['step']:2}  loss: {row['loss']:7.4f}{norm}  "
                    f"memory: {gib:5.2f}GiB({gib / 0.8:.2f}%)  "
                    f"tps: {row['tps']:,.0f}  tflops: {row['tps'] / 1e7:.2f}  mfu: {row['tps'] / 1e8:.2f}%\n"
                )
    return path


def examples(recipe: Recipe, rows: list[Row], place: Path) -> Path:
    """As pytorch/examples prints."""
    path, at, number_of = place / "output.txt", 1, recipe.plant.get("held", recipe.held)
    with path.open("w") as file:
        for row in rows:
            if row["kind"] == "note":
                file.write(row["text"] + "\n")
            elif row["kind"] == "eval":
                told = (
                    f", Accuracy: {row['acc'] * number_of:.0f}/{number_of} ({100 * row['acc']:.1f}%)"
                    if "acc" in row
                    else ""
                )
                file.write(f"\nTest set: Average loss: {row['loss']:.4f}{told}\n\n")
                at += 1
            else:
                inside = row["step"] - (at - 1) * recipe.eval_every
                share = 100 * inside / recipe.eval_every
                extra = f"\tlr: {row['lr']:.2e}" if "lr" in recipe.columns else ""
                seen, of = inside * recipe.batch, recipe.eval_every * recipe.batch
                file.write(f"Train Epoch: {at} [{seen}/{of} ({share:.0f}%)]\tLoss: {row['loss']:.6f}{extra}\n")
    return path


VOICE: dict[str, Callable[[Recipe, list[Row], Path], Path]] = {
    "nanogpt": nanogpt,
    "kerastext": keras_text,
    "kerascsv": keras_csv,
    "wandb": charts,
    "wandbtable": table,
    "jsonl": jsonl,
    "logging": logged,
    "titan": titan,
    "examples": examples,
}


def in_log(recipe: Recipe, step: int | None) -> int | None:
    """A step as the log counts."""
    return step if step is None or recipe.voice not in BY_EPOCH else math.ceil(step / recipe.eval_every)
