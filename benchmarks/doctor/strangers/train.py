# ruff: noqa: E501
"""The loop, and what it saw: every step, every evaluation, and a clock that is drawn so that a seed gives its bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from .data import Data, tasks
from .models import Net
from .plan import Plan, factor


@dataclass
class Evaluation:
    """One pass over validation samples."""

    step: int
    loss: float
    accuracy: float
    seconds: float


@dataclass
class Trace:
    """What happened; per step in arrays."""

    plan: Plan
    loss: np.ndarray
    accuracy: np.ndarray
    rate: np.ndarray
    norm: np.ndarray
    weights: np.ndarray
    scale: np.ndarray
    skipped: np.ndarray
    clock: dict[str, np.ndarray]
    evaluations: list[Evaluation] = field(default_factory=list)
    layers: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    samples: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """Losses of single validation samples at the end."""
    per_epoch: float = 1.0
    uniform: float = float("nan")
    """The loss of a guess that knows nothing."""

    @property
    def final(self) -> float:
        return self.evaluations[-1].loss

    @property
    def steps(self) -> int:
        return len(self.loss)

    def valid(self) -> np.ndarray:
        return np.array([one.loss for one in self.evaluations])

    def tail(self, share: float = 0.1) -> float:
        part = self.loss[-max(3, int(share * self.steps)) :]
        return float(part[np.isfinite(part)].mean()) if np.isfinite(part).any() else float("nan")


def make_data(plan: Plan) -> Data:
    rng = np.random.RandomState(plan.seed % 10_007)
    data = tasks()[plan.task].make(rng, plan.n, plan.valid)
    for change in plan.of_data:
        data = change(data, np.random.RandomState(plan.seed % 7919))
    return data


def losses(
    plan: Plan, out: torch.Tensor, y: torch.Tensor, smoothing: float = 0.0, weights: bool = True
) -> torch.Tensor:
    """The loss of each sample; of places that are asked for, where a sample has several."""
    if plan.kind == "reg":
        error = out.squeeze(-1) - y
        return F.huber_loss(out.squeeze(-1), y, reduction="none") if plan.robust else error**2
    if plan.softmax:
        out = out.softmax(-1) if plan.softmax == "softmax" else out.sigmoid()
    flat = F.cross_entropy(
        out.reshape(-1, out.shape[-1]), y.reshape(-1), reduction="none", label_smoothing=smoothing,
        weight=plan.class_weights if weights else None,
    )  # fmt: skip
    if y.dim() == 1:
        return flat
    asked = (y != -100).float()
    return (flat.reshape(y.shape) * asked).sum(1) / asked.sum(1).clamp(min=1)


def _optimizer(plan: Plan, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    rate, decay = plan.rate, plan.decay
    if plan.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=plan.momentum, weight_decay=decay, fused=True)
    if plan.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, rate, weight_decay=decay)
    if plan.optimizer == "nadam":
        return torch.optim.NAdam(parameters, rate, weight_decay=decay)
    family = torch.optim.AdamW if plan.optimizer == "adamw" else torch.optim.Adam
    return family(parameters, rate, weight_decay=decay, fused=True)


class Loop:
    """One training. Hooks of a plan are given this, the step and what they may change."""

    def __init__(self, plan: Plan, start: dict[str, torch.Tensor] | None = None) -> None:
        self.plan, self.data = plan, make_data(plan)
        torch.manual_seed(plan.seed)
        self.model = Net(plan, self.data)
        if start is not None:
            self.model.load_state_dict(start)
        for change in plan.of_model:
            change(self.model)
        for name, parameter in self.model.named_parameters():
            if name.startswith(plan.frozen) if plan.frozen else False:
                parameter.requires_grad_(False)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = _optimizer(plan, self.parameters)
        self.rng = np.random.RandomState(plan.seed % 65_521)
        self.drawn = torch.Generator().manual_seed(plan.seed % 4093)
        self.average: dict[str, torch.Tensor] | None = None
        self.reduced, self.best, self.waited = 1.0, float("inf"), 0
        self.scale, self.clean = 2.0**14, 0
        self.teacher: Net | None = None
        self.log_at: set[int] = set()

    def batches(self, step: int) -> torch.Tensor:
        many, size = len(self.data.x), min(self.plan.batch, len(self.data.x))
        per = max(1, many // size)
        if step % per == 0:
            self.order = (
                torch.arange(many) if self.plan.order == "as is" else torch.randperm(many, generator=self.drawn)
            )
        place = step % per
        return self.order[place * size : (place + 1) * size]

    @torch.no_grad()
    def evaluate(self, step: int, whole: bool = False) -> tuple[Evaluation, np.ndarray]:
        plan, x, y = self.plan, self.data.vx, self.data.vy
        if plan.drawn_valid and not whole:
            chosen = torch.randint(0, len(x), (plan.drawn_valid,), generator=self.drawn)
            x, y = x[chosen], y[chosen]
        kept = None
        if self.average is not None:
            kept = {k: v.clone() for k, v in self.model.state_dict().items()}
            self.model.load_state_dict(self.average, strict=False)
        if not plan.training_mode:
            self.model.eval()
        self.model.watch = plan.layers
        out = self.model(x)
        self.model.watch = False
        self.model.train()
        if kept is not None:
            self.model.load_state_dict(kept)
        each = losses(plan, out, y, weights=False).numpy()
        return Evaluation(step, float(each.mean()), self.right(out, y), 0.0), each

    def right(self, out: torch.Tensor, y: torch.Tensor) -> float:
        if self.plan.kind == "reg":
            return float("nan")
        asked = y != -100
        return float((out.argmax(-1) == y)[asked].float().mean())

    def run(self) -> Trace:
        plan, data, model = self.plan, self.data, self.model
        steps = plan.ends_at or plan.steps
        blank = lambda: np.full(steps, np.nan)  # noqa: E731
        trace = Trace(plan, *(blank() for _ in range(7)), clock=clocks(plan, steps))
        trace.per_epoch = max(1, len(data.x) // min(plan.batch, len(data.x)))
        trace.uniform = float(np.log(data.num_labels)) if plan.kind != "reg" else float((data.vy**2).mean())
        at = set(np.unique(np.linspace(steps / plan.evaluations, steps, plan.evaluations).astype(int)).tolist())
        named = {f"{n}": p for n, p in model.named_parameters() if p.dim() > 1} if plan.layers else {}
        model.train()
        for step in range(steps):
            chosen = self.batches(step)
            x, y = data.x[chosen], data.y[chosen]
            for change in plan.of_batch:
                x, y = change(self, step, x, y)
            rate = plan.rate * factor(plan, step) * self.reduced
            for change in plan.of_rate:
                rate = change(step, rate)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            if step % plan.clear_every == 0:
                self.optimizer.zero_grad()
            out = model(x)
            each = losses(plan, out, y, plan.smoothing)
            if plan.sample_weights is not None:
                each = each * plan.sample_weights(self, step, x, y)
            loss = each.mean()
            loss = self.extra(loss, step, x, out)
            (loss * plan.times).backward()
            told = float(loss.detach()) * (plan.times if plan.tells_times else 1)
            for hook in plan.of_gradient:
                hook(self, step)
            norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, plan.clip or 1e30))
            skip = self.rescale(norm) if plan.scaled else False
            if not skip:
                self.optimizer.step()
            if plan.averaged:
                self.keep_average()
            for hook in plan.after:
                hook(self, step)
            trace.loss[step], trace.rate[step], trace.norm[step] = told, rate, norm
            trace.accuracy[step] = self.right(out, y)
            trace.scale[step], trace.skipped[step] = self.scale, float(skip)
            if step % 10 == 0 or step + 1 == steps:
                trace.weights[max(0, step - 9) : step + 1] = (
                    sum(float(p.detach().norm()) ** 2 for p in self.parameters) ** 0.5
                )
                for name, p in named.items():
                    g = 0.0 if p.grad is None else float(p.grad.norm())
                    trace.layers.setdefault(f"grad_norm/{name}", []).append((step + 1, g))
            if step + 1 in at:
                one, _ = self.evaluate(step + 1)
                one.seconds = float(trace.clock["evaluation"][step])
                trace.evaluations.append(one)
                for i, dead in enumerate(model.dead if plan.layers else ()):
                    trace.layers.setdefault(f"dead_fraction/blocks.{i}", []).append((step + 1, dead))
                self.lower(one.loss)
        trace.samples = self.evaluate(steps, whole=True)[1]
        return trace

    def extra(self, loss: torch.Tensor, step: int, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        plan = self.plan
        if plan.teacher and self.teacher is not None:
            with torch.no_grad():
                soft = (self.teacher(x) / 2).softmax(-1)
            loss = 0.5 * loss + 2 * F.kl_div((out / 2).log_softmax(-1), soft, reduction="none").sum(-1).mean()
        if plan.second_task:
            loss = (
                loss
                + plan.second_task
                * ((out.logsumexp(-1) - x.float().flatten(1).mean(1).reshape(-1, *[1] * (out.dim() - 2))) ** 2).mean()
            )
        if plan.penalty is not None:
            loss = loss + plan.penalty(step) * (out**2).mean()
        return loss

    def rescale(self, norm: float) -> bool:
        """The loss scale of half precision: halved where a gradient is not finite, doubled after a while without."""
        if not np.isfinite(norm) or norm * self.scale > 65_504 * 8:
            self.scale, self.clean = max(1.0, self.scale / 2), 0
            return True
        self.clean += 1
        if self.clean >= 200:
            self.scale, self.clean = self.scale * 2, 0
        return False

    def lower(self, loss: float) -> None:
        """The rate is halved where the validation loss stands."""
        if self.plan.schedule != "plateau":
            return
        self.waited = 0 if loss < self.best * 0.998 else self.waited + 1
        self.best = min(self.best, loss)
        if self.waited >= 3:
            self.reduced, self.waited = self.reduced * 0.5, 0

    def keep_average(self) -> None:
        now = {n: p.detach() for n, p in self.model.named_parameters()}
        if self.average is None:
            self.average = {n: p.clone() for n, p in now.items()}
        for n, p in now.items():
            self.average[n].lerp_(p, 1 - self.plan.averaged)


def clocks(plan: Plan, steps: int) -> dict[str, np.ndarray]:
    """Seconds and bytes of a machine that is drawn: compute, data, evaluation, memory; `plan.clock` says what ails it."""
    rng, c = np.random.RandomState(plan.seed % 32_749 + 1), plan.clock
    t = np.arange(steps) / steps
    base = float(np.exp(rng.uniform(np.log(0.004), np.log(0.8))))
    step = base * np.exp(rng.uniform(0.01, 0.08) * rng.randn(steps)) * (1 + rng.uniform(-0.02, 0.03) * t)
    step[rng.rand(steps) < 0.004] *= rng.uniform(1.5, 3)
    step[0] *= rng.uniform(1, 30)
    data = base * rng.uniform(0.003, 0.06) * np.exp(0.3 * rng.randn(steps))
    begin = c.get("from", 0.0)
    since = np.clip((t - begin) / (1 - begin), 0, 1)
    step = step * (1 + c.get("slower", 0) * since ** c.get("power", 1))
    if "stairs" in c:
        step = step * (1 + c["stairs"] * np.floor(since * 6) / 6)
    if "wait" in c:
        data = data + base * c["wait"] * np.exp(0.25 * rng.randn(steps)) * (t >= begin)
    if "stall" in c:
        often = int(c["stall_every"])
        data = data + (np.arange(steps) % often == 0) * base * c["stall"] * often * np.exp(0.2 * rng.randn(steps))
    if "sawtooth" in c:
        data = data * (1 + 0.5 * (np.arange(steps) % 37) / 37)
    memory = rng.choice([3e8, 2e9, 1.1e10, 3.6e10]) * rng.uniform(0.6, 1.3)
    growth = c.get("leak", 0) * (np.floor(t * 12) / 12 if c.get("leak_steps") else t)
    used = memory * (1 - 0.1 * np.exp(-t * 60) + growth) + memory * 0.002 * rng.rand(steps)
    if "cache" in c:
        used = used + memory * 0.2 * ((np.arange(steps) % 90) / 90)
    per = steps * base / max(1, plan.evaluations)
    length = per * c.get("evaluation", rng.uniform(0.01, 0.06))
    return {
        "step": step + data, "data": data, "memory": used, "pace": plan.batch * (32 if plan.inputs == "tokens" else 1) / (step + data),
        "evaluation": length * np.exp(0.04 * rng.randn(steps)),
    }  # fmt: skip


def train(plan: Plan) -> Trace:
    """A run of a plan; before it, what it starts from where that is a trained net."""
    torch.set_num_threads(1)
    start = None
    if plan.warm_start or plan.teacher:
        before = Loop(
            plan.copy(
                steps=plan.warm_start or 300,
                warm_start=0,
                teacher=False,
                of_data=plan.of_data[:-1] if plan.warm_start else plan.of_data,
                evaluations=2,
                seed=plan.seed,
                layers=False,
                ends_at=0,
                averaged=0.0,
            )
        )
        before.run()
        start = before.model.state_dict()
    loop = Loop(plan, start if plan.warm_start else None)
    if plan.teacher:
        loop.teacher = before.model.eval()
    return loop.run()
