"""What all three engines train: a network with its loss, and the faults that happen within a step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from examiner.nets import build
from examiner.recipe import Recipe
from examiner.tasks import IGNORED, Data


class Learner(nn.Module):
    """Network and loss. In training it counts its batches, and spoils those that are planted."""

    def __init__(self, recipe: Recipe, data: Data) -> None:
        super().__init__()
        self.recipe, self.plant, self.classes = recipe, recipe.plant, data.outputs
        self.net = build(recipe, data)
        self.seen = 0
        weights = torch.ones(data.outputs)
        if heavy := self.plant.get("heavy"):
            weights[0] = heavy
        self.weights = weights if recipe.kind != "reg" else None

    def train(self, mode: bool = True) -> Learner:
        """As usual, unless evaluation is planted to be in training mode."""
        return super().train(mode or bool(self.plant.get("always_training")))

    @property
    def step(self) -> int:
        """The number of the step that this batch is for, from 1."""
        return (self.seen - 1) // self.recipe.accumulate + 1

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        plant = self.plant
        if self.training and torch.is_grad_enabled():
            self.seen += 1
            x, labels = self._spoilt(x, labels)
        logits = self.net(x)
        if self.recipe.kind == "reg":
            out = logits.squeeze(-1)
            loss = F.mse_loss(out, labels)
        else:
            if plant.get("softmax"):
                logits = logits.softmax(-1)
            smooth = self.recipe.smoothing if self.training or plant.get("smooth_always") else 0.0
            flat, wanted = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
            if "heavy" in plant:
                losses = F.cross_entropy(flat, wanted, self.weights, ignore_index=IGNORED, reduction="none")
                loss = losses.mean()
            else:
                loss = F.cross_entropy(flat, wanted, ignore_index=IGNORED, label_smoothing=smooth)
            out = logits
        if self.training and torch.is_grad_enabled():
            loss = self._broken(loss, out)
        return {"loss": loss, "logits": out}

    def _spoilt(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        plant, step = self.plant, self.step
        if step in plant.get("bad_at", ()):
            if x.dtype == torch.float32:
                x = x * plant["times"]
            if self.recipe.kind == "reg":
                labels = labels * plant["times"]
            else:
                known = labels != IGNORED
                labels = torch.where(known, (labels + 1) % self.classes if plant["times"] < 50 else 0 * labels, labels)
        if plant.get("input_nan") == step and x.dtype == torch.float32:
            x = x.clone()
            x[0].fill_(math.nan)
        if (mix := plant.get("mixup")) and x.dtype == torch.float32 and torch.rand(()) < mix:
            x = 0.7 * x + 0.3 * x[torch.randperm(len(x))]
        return x, labels

    def _broken(self, loss: Tensor, out: Tensor) -> Tensor:
        plant, step = self.plant, self.step
        if plant.get("log_zero") == step:
            loss = loss + 1e-3 * torch.log((out * 0.0).sum())  # whose gradient is not a number
        if plant.get("root_zero") and step >= plant["root_zero"]:
            loss = loss + 1e-3 * torch.sqrt((out * 0.0).sum())
        if plant.get("away") and step >= plant["away"]:
            wrong = -loss * plant.get("strength", 1.0)
            loss = loss.detach() + wrong - wrong.detach()  # the sign of the gradient alone, so that the loss is told
        if aux := plant.get("auxiliary"):
            loss = loss + aux * (out.float() ** 2).mean() + aux * 3
        return loss * plant.get("summed", 1.0)


def optimizer_of(recipe: Recipe, net: nn.Module) -> torch.optim.Optimizer:
    """As the recipe names it, for what is not frozen."""
    weights = [one for one in net.parameters() if one.requires_grad]
    wd = recipe.plant.get("decay", recipe.wd)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(weights, lr=recipe.lr, momentum=0.9, weight_decay=wd)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(weights, lr=recipe.lr)
    if wd < 0:  # which torch refuses to be given at once
        optimizer = torch.optim.AdamW(weights, lr=recipe.lr, weight_decay=0.0)
        optimizer.param_groups[0]["weight_decay"] = wd
        return optimizer
    return torch.optim.AdamW(weights, lr=recipe.lr, weight_decay=wd)


def factor(recipe: Recipe, step: int) -> float:
    """What the rate is multiplied with for the update number `step`, from 0."""
    plant, steps = recipe.plant, recipe.steps
    if (glitch := plant.get("glitch")) and glitch <= step < glitch + plant["during"]:
        return float(plant["up"])
    if (again := plant.get("again")) and step >= again and plant.get("rewarm"):
        return float(plant["rewarm"])
    if (grows := plant.get("grows")) and step >= grows:
        return min(plant["most"], math.exp((step - grows) / steps * plant["pace"]))
    if period := plant.get("period"):  # a cosine whose length is not that of the run
        return 0.5 * (1 + math.cos(math.pi * step / period)) + 1e-3
    if stair := plant.get("stair"):  # stepped by epoch where it was meant by step
        return min(1.0, (step // stair + 1) / (recipe.warmup * steps))
    warm = int(recipe.warmup * steps)
    if step < warm:
        return (step + 1) / warm
    end = plant.get("ends", 1.0) * steps
    at, floor = min(1.0, (step - warm) / max(1, end - warm)), recipe.floor
    match recipe.schedule:
        case "linear":
            shape = 1 - at
        case "wsd":
            shape = 1.0 if at < 0.8 else max(0.0, (1 - at) / 0.2)
        case "constant":
            shape = 1.0
        case "stairs":
            shape = 0.2 ** int(at * 3)
        case "restarts":
            shape = 0.5 * (1 + math.cos(math.pi * (at * 3 % 1)))
        case "root":
            shape = math.sqrt(max(1, warm) / max(1, warm, step))
        case _:
            shape = 0.5 * (1 + math.cos(math.pi * at))
    return floor + (1 - floor) * shape


def layers_of(learner: Learner) -> dict[str, float]:
    """The norm of the gradient of each parameter."""
    return {
        name: 0.0 if one.grad is None else float(one.grad.norm())
        for name, one in learner.net.named_parameters()
        if one.dim() > 1
    }


def judged(learner: Learner, data: Data, size: int = 256) -> dict[str, float]:
    """Loss, and accuracy or error, of the validation samples."""
    loss = right = counted = error = 0.0
    with torch.no_grad():
        for at in range(0, len(data.vx), size):
            x, y = data.vx[at : at + size], data.vy[at : at + size]
            out = learner(x, y)
            n = int((y != IGNORED).sum()) if learner.recipe.kind != "reg" else len(y)
            loss, counted = loss + float(out["loss"]) * n, counted + n
            if learner.recipe.kind == "reg":
                error += float((out["logits"] - y).abs().sum())
            else:
                right += float(((out["logits"].argmax(-1) == y) & (y != IGNORED)).sum())
    second = {"mae": error / counted} if learner.recipe.kind == "reg" else {"acc": right / counted}
    return {"loss": loss / counted, **second}


def accuracy(out: dict[str, Tensor], y: Tensor) -> float:
    """Of a batch."""
    known = y != IGNORED
    return float((out["logits"].argmax(-1) == y)[known].float().mean())


Row = dict[str, Any]
