"""A plain loop: rows of what a stranger's loop would know."""

from __future__ import annotations

import gc
import math
import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from examiner.learner import Learner, Row, accuracy, factor, judged, layers_of, optimizer_of
from examiner.recipe import Recipe
from examiner.tasks import Data, make

PAGE = os.sysconf("SC_PAGE_SIZE")


def memory() -> int:
    """Bytes of this process that are resident."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def train(recipe: Recipe) -> list[Row]:
    """Rows of training, of evaluations and notes, in their order."""
    data = make(recipe)
    learner = Learner(recipe, data)
    optimizer = optimizer_of(recipe, learner)
    plant, rows, kept = recipe.plant, [], []
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14, growth_interval=80, enabled=bool(plant.get("scaler")))
    shuffle = np.random.default_rng(recipe.seed + 1)
    n, per_epoch = len(data.x), max(1, len(data.x) // (recipe.batch * recipe.accumulate))
    order, cursor = np.arange(n), n
    window: dict[str, list[float]] = {}
    older = None
    alive = _watch(learner) if "dead" in recipe.columns else {}
    begun = time.perf_counter()
    learner.train()
    for step in range(1, recipe.steps + 1):
        started = time.perf_counter()
        if plant.get("remember") == step:
            older = {name: one.clone() for name, one in learner.state_dict().items()}
        if plant.get("again") == step:
            rows.append({"kind": "note", "step": step - 1, "text": f"Resuming from checkpoint at step {step - 1}"})
            optimizer = _resumed(recipe, learner, optimizer, older)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * factor(recipe, step - 1)
        if not plant.get("kept") or step % plant["kept"] == 0:
            optimizer.zero_grad()
        total = hits = waited = spread = 0.0
        for _ in range(recipe.accumulate):
            fetch = time.perf_counter()
            if cursor + recipe.batch > n:
                cursor = 0
                if not plant.get("order"):
                    shuffle.shuffle(order)
            index = torch.as_tensor(order[cursor : cursor + recipe.batch])
            cursor += recipe.batch
            x, y = data.x[index], data.y[index]
            if wait := plant.get("waits"):
                time.sleep(wait)
            waited += time.perf_counter() - fetch
            out = learner(x, y)
            loss = out["loss"] / (1 if plant.get("undivided") else recipe.accumulate)
            scaler.scale(loss).backward()
            total += float(loss.detach())
            if "acc" in recipe.columns and recipe.kind != "reg":
                hits += accuracy(out, y) / recipe.accumulate
            if "spread" in recipe.columns:
                spread = float(x.std()) if x.dtype == torch.float32 else 0.0
        scaler.unscale_(optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(learner.parameters(), recipe.clip or 1e9))
        layers = layers_of(learner) if "layers" in recipe.columns else {}
        scaler.step(optimizer)
        scaler.update()
        if size := plant.get("leaks"):
            kept.append(np.full(int(size * 131072), step, np.float64))
        if plant.get("caches") and step < recipe.steps // 5:
            kept.append(np.full(40000, step, np.float64))
        if slow := plant.get("slower"):
            until = time.perf_counter() + slow * (step / recipe.steps) ** plant.get("bend", 1.0)
            while time.perf_counter() < until:
                math.sqrt(2.0)
        if plant.get("hiccup") and step % plant["hiccup"] == 0:
            time.sleep(0.08)
        now = time.perf_counter()
        fresh = {"loss": total, "acc": hits, "gnorm": norm, "dt": now - started, "data": waited}
        for name, value in fresh.items():
            window.setdefault(name, []).append(value)
        if step % recipe.log_every == 0 or step == 1:
            mean = {name: statistics.fmean(values) for name, values in window.items()}
            row: Row = {"kind": "train", "step": step, "epoch": step / per_epoch, "lr": optimizer.param_groups[0]["lr"]}
            row |= {"loss": mean["loss"] if recipe.average else total, "gnorm": norm}
            row |= {"acc": mean["acc"] if recipe.average else hits} if recipe.kind != "reg" else {}
            row |= {"dt": mean["dt"], "data": mean["data"], "mem": memory(), "clock": now - begun, "spread": spread}
            row["tps"] = recipe.batch * recipe.accumulate * (data.x[0].numel()) / max(1e-6, mean["dt"])
            row["scale"] = float(scaler.get_scale()) if plant.get("scaler") else 1.0
            row["layers"] = layers
            row["dead"] = {name: float((peak <= 0).float().mean()) for name, peak in alive.items()}
            rows.append(row)
            window = {}
        if recipe.eval_every and (step % recipe.eval_every == 0 or step == recipe.steps):
            rows.append(_evaluated(recipe, learner, data, step, per_epoch, begun))
            if plant.get("twice"):
                rows.append(_evaluated(recipe, learner, data, step, per_epoch, begun))
        if plant.get("cut") and step >= plant["cut"] * recipe.steps:
            break
        if now - begun > 20 or (not math.isfinite(total) and step > plant.get("until_nan", 1e9)):
            break
    del kept
    gc.collect()
    return rows


def _resumed(
    recipe: Recipe, learner: Learner, optimizer: torch.optim.Optimizer, older: dict | None
) -> torch.optim.Optimizer:
    """The run goes on from what was saved, which is not all."""
    how = recipe.plant.get("lost", "nothing")
    if how == "weights" and older is not None:
        learner.load_state_dict(older)
    if how == "head":
        torch.manual_seed(recipe.seed + 5)
        for module in list(learner.net.modules())[-3:]:
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    if how == "noise":
        with torch.no_grad():
            for one in learner.parameters():
                one.add_(torch.randn_like(one) * one.std().nan_to_num(0.0) * 0.5)
    return optimizer if how == "nothing" else optimizer_of(recipe, learner)


def _watch(learner: Learner) -> dict[str, torch.Tensor]:
    """The largest output of each unit after an activation in the newest batch."""
    peaks: dict[str, torch.Tensor] = {}
    for at, module in enumerate(one for one in learner.net.modules() if isinstance(one, torch.nn.ReLU)):

        def hook(_: object, __: object, out: torch.Tensor, name: str = f"relu{at}") -> None:
            peaks[name] = out.detach().flatten(0, -2).amax(0) if out.dim() < 4 else out.detach().amax((0, 2, 3))

        module.register_forward_hook(hook)
    return peaks


def _evaluated(recipe: Recipe, learner: Learner, data: Data, step: int, per_epoch: int, begun: float) -> Row:
    started = time.perf_counter()
    learner.eval()
    for _ in range(recipe.plant.get("evaluations", 1)):
        found = judged(learner, data, recipe.plant.get("eval_batch", 256))
    learner.train()
    now = time.perf_counter()
    return {
        "kind": "eval",
        "step": step,
        "epoch": step / per_epoch,
        "clock": now - begun,
        "took": now - started,
        **found,
    }
