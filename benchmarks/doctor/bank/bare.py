"""A loop as people write it, with a CSV or JSON Lines log under names that differ from run to run."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import psutil
import torch
from torch import nn

from bank import clock
from bank.experiment import Experiment, Running

STYLES: Final[tuple[dict[str, str], ...]] = (
    {
        "step": "step", "loss": "train_loss", "rate": "lr", "grad_norm": "grad_norm", "validation": "val_loss",
        "accuracy": "val_acc", "step_seconds": "step_time", "data_seconds": "data_time", "memory": "memory_mb",
        "scale": "loss_scale",
    },
    {
        "step": "iter", "loss": "loss", "rate": "learning_rate", "grad_norm": "gradient_norm",
        "validation": "eval_loss", "accuracy": "eval_accuracy", "step_seconds": "step_time",
        "data_seconds": "data_time", "memory": "rss_mb", "scale": "loss_scale",
    },
    {
        "step": "global_step", "loss": "train/loss", "rate": "train/lr", "grad_norm": "train/grad_norm",
        "validation": "val/loss", "accuracy": "val/accuracy", "step_seconds": "train/step_time",
        "data_seconds": "train/data_time", "memory": "memory_mb", "scale": "loss_scale",
    },
)  # fmt: skip
"""What the columns are called."""


def train(it: Experiment, path: Path) -> None:
    """Train, and write the log to `path` with `.csv` or `.jsonl`."""
    draw = it.scenario.draw("log")
    names, every = draw.choice(STYLES), draw.choice([1, 1, 1, 2, 5])
    rows: list[dict[str, Any]] = []
    running = Running(it)
    step, kept, lost = 1, None, False
    scale = it.loss_scale
    while step <= it.steps:
        row, scale = one_step(running, step, scale)
        if it.is_evaluated(step):
            found = running.evaluate()
            row |= {"validation": found["loss"]}
            if it.logs["accuracy"] and "accuracy" in found:
                row["accuracy"] = found["accuracy"]
        rows.append(
            {
                "step": step,
                **(row if step % every == 0 else {k: row[k] for k in ("validation", "accuracy") if k in row}),
            }
        )
        if it.resumed_at is not None and step % 20 == 0 and not lost:
            kept = (step, _copy(running.model.state_dict()), _copy(running.optimizer.state_dict()))
        if it.resumed_at == step and not lost and kept is not None:
            lost = True
            step, weights, state = kept
            running.model.load_state_dict(weights)
            running.optimizer.load_state_dict(state)
            _lose(running, it.lost_share)
        step += 1
    told = [{names[key]: value for key, value in row.items()} for row in rows if len(row) > 1]
    if it.scenario.logger == "jsonl":
        text = "".join(json.dumps(row) + "\n" for row in told)
        path.with_suffix(".jsonl").write_text(text, encoding="utf-8")
        return
    columns = list(dict.fromkeys(name for row in told for name in row))
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(told)


def one_step(running: Running, step: int, scale: float | None) -> tuple[dict[str, Any], float | None]:
    """One update, and what may be logged of it; the loss scale after it."""
    it = running.it
    begun = clock.seconds()
    running.begin(step)
    if running.is_cleared(step):
        running.optimizer.zero_grad()
    waited, total = 0.0, 0.0
    for _ in range(it.accumulation):
        before = clock.seconds()
        clock.wait(it.reading(step))
        batch = running.next_batch()
        waited += clock.seconds() - before
        loss, _ = running.loss(batch)
        part = running.part_of_step(loss)
        part.backward()  # type: ignore[no-untyped-call]
        total += float(part.detach())
    it.on_gradients(step, running.parameters)
    overflowed = scale is not None and it.overflows(step)
    norm = float("inf") if overflowed else float(_norm(running.parameters, it.clip))
    rate = it.rate * running.factor(step)
    for group in running.optimizer.param_groups:
        group["lr"] = rate
    kept = it.before_update(step, running.parameters)
    if not overflowed:
        running.optimizer.step()
    it.after_update(step, running.parameters, kept)
    if scale is not None:
        scale = max(1.0, scale / 2) if overflowed else scale
    row: dict[str, Any] = {"loss": total}
    if it.logs["rate"]:
        row["rate"] = rate
    if it.logs["grad_norm"]:
        row["grad_norm"] = norm
    if it.logs["times"]:
        row |= {"step_seconds": round(clock.seconds() - begun, 5), "data_seconds": round(waited, 5)}
    if it.logs["memory"]:
        row["memory"] = round(psutil.Process().memory_info().rss / 1e6, 2)
    if scale is not None:
        row["scale"] = scale
    return row, scale


def _norm(parameters: list[nn.Parameter], clip: float | None) -> torch.Tensor:
    return nn.utils.clip_grad_norm_(parameters, float("inf") if clip is None else clip)


def _copy(state: Mapping[str, Any]) -> dict[str, Any]:
    import copy

    return copy.deepcopy(dict(state))


def _lose(running: Running, share: float) -> None:
    """Put fresh noise in place of a share of every weight."""
    with torch.no_grad():
        for parameter in running.parameters:
            if parameter.ndim > 1 and share:
                parameter.mul_(1.0 - share).add_(torch.randn_like(parameter) * parameter.std() * share)
