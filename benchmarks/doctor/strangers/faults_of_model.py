"""Faults of the model, of its weights, and of what it learns."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from .faults import fault, finite, simply_worse, window, worse
from .plan import Plan
from .train import Trace

Rng = np.random.RandomState
PER_PLACE = ("lm", "tag", "s2s")


def _grow(a: Trace, b: Trace, onset: int) -> bool:
    if not finite(a) or a.loss.max() > 1e9:
        return False
    base = np.median(a.norm[: max(10, a.steps // 5)])
    low = a.loss[: max(10, onset)].min()
    high = np.flatnonzero(a.norm > 8 * base)
    lost = np.flatnonzero(a.loss > 1.5 * low + 0.1)
    lost = lost[lost > onset]
    return bool(len(high) and len(lost) and a.norm.max() > 60 * base and high[0] < lost[-1] and a.tail() > 1.3 * low)


@fault("exploding-gradients", _grow, needs="grad_norm", only=lambda n, t: t.inputs in ("vector", "image"))
def decay_of_wrong_sign(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.family, base.norm, base.depth, base.residual, base.clip, base.act = "mlp", "none", 5, False, 0.0, "relu"
    begin, pace = int(rng.uniform(0.2, 0.5) * base.steps), 1 + (4, 7, 12)[s] / base.steps

    def grow(loop, step):
        if step >= begin:
            with torch.no_grad():
                for p in loop.parameters:
                    p.mul_(pace)

    base.optimizer, base.rate = "adam", 1e-3
    return base.copy(after=[grow]), begin + base.steps // 20


@fault("exploding-gradients", _grow, needs="grad_norm", only=lambda n, t: t.inputs == "tokens" and t.kind != "cls")
def recurrence(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.family, base.depth, base.clip, base.optimizer, base.rate = "rnn", 1, 0.0, "adam", 3e-3
    begin, pace = int(rng.uniform(0.2, 0.5) * base.steps), 1 + (5, 9, 15)[s] / base.steps

    def grow(loop, step):
        if step >= begin:
            with torch.no_grad():
                loop.model.blocks[0].net.weight_hh_l0.mul_(pace)
                loop.model.head.weight.mul_(pace)

    return base.copy(after=[grow]), begin + base.steps // 20


@fault("nan-loss", lambda a, b, o: not np.isfinite(a.loss[o:]).any() and np.isfinite(a.loss[:o]).all())
def weights_gone(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    at = int((0.85, 0.6, 0.25)[s] * rng.uniform(0.9, 1.1) * base.steps)

    def lose(loop, step):
        if step == at - 1:
            loop.parameters[-1].data.fill_(float("nan"))

    return base.copy(after=[lose]), at


@fault("nan-loss", lambda a, b, o: not np.isfinite(a.loss[o:]).all() and np.isfinite(a.loss[:o]).all())
def nothing_to_divide_by(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    """A mean over no samples, once or twice; where the update is not skipped all is lost with it."""
    at = int(rng.uniform(0.2, 0.8) * base.steps)
    hits = {at} if s == 0 else {at, at + 7}

    def empty(loop, step, x, y):
        if step in hits and s == 0:
            loop.plan.sample_weights = lambda *_: torch.tensor(float("nan"))
        elif step in hits:
            loop.plan.sample_weights = lambda *_: torch.tensor(float("inf"))
        else:
            loop.plan.sample_weights = None
        return x, y

    def skip(loop, step):
        if step in hits and s < 2:
            loop.optimizer.zero_grad()

    return base.copy(of_batch=[empty], of_gradient=[skip]), at


def _frozen(a: Trace, b: Trace, _: int) -> bool:
    return finite(a) and worse(a, b, 0.08)


@fault("frozen-parameters", _frozen, needs="layers")
def only_the_head(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    frozen = (("stem",), ("blocks",), ("stem", "blocks", "norm", "positions"))[s]
    return base.copy(frozen=frozen, layers=True), 0


@fault("frozen-parameters", _frozen, needs="layers")
def cut_off(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.depth = max(base.depth, 2)
    return base.copy(
        frozen=tuple(("blocks.0", "blocks.1", "blocks")[: s + 1]) + (("stem",) if s else ()), layers=True
    ), 0


def _vanish(a: Trace, b: Trace, _: int) -> bool:
    series = [
        np.mean([v for _, v in rows[: max(3, len(rows) // 2)]])
        for name, rows in a.layers.items()
        if name.startswith("grad_norm/blocks")
    ]
    return finite(a) and len(series) > 3 and 0 < series[0] < 2e-3 * series[-1] and worse(a, b, 0.08)


@fault("vanishing-gradients", _vanish, needs="layers", only=lambda n, t: t.inputs == "vector")
def deep_and_saturated(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.depth, base.norm, base.width, base.act, base.residual = (6, 9, 13)[s], "layer", 48, "relu", True
    base.optimizer, base.rate, base.clip = "adam", 2e-3, 0.0
    return base.copy(
        act=str(rng.choice(["sigmoid", "sigmoid", "tanh"])) if s else "sigmoid",
        norm="none",
        residual=False,
        layers=True,
    ), 0


@fault("vanishing-gradients", _vanish, needs="layers", only=lambda n, t: t.inputs == "vector")
def small_weights(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.depth, base.norm, base.width, base.act, base.residual = (5, 7, 10)[s], "layer", 48, "relu", True
    base.optimizer, base.rate, base.clip = "sgd", 0.03, 0.0

    def shrink(model: nn.Module) -> None:
        for name, p in model.named_parameters():
            if p.dim() > 1 and "blocks" in name:
                nn.init.normal_(p, std=0.04)

    return base.copy(norm="none", act="tanh", residual=False, layers=True, of_model=[shrink]), 0


def _dead(a: Trace, b: Trace, _: int) -> bool:
    dead = [rows[-1][1] for name, rows in a.layers.items() if name.startswith("dead")]
    return finite(a) and max(dead, default=0) > 0.4 and worse(a, b)


@fault("dead-units", _dead, needs="layers", only=lambda n, t: t.inputs in ("vector", "image"))
def biases_far_below(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.family, base.act, base.norm, base.depth, base.residual = "mlp", "relu", "none", 2, False

    def sink(model: nn.Module) -> None:
        for block in model.blocks:
            count = int((0.75, 0.9, 0.97)[s] * len(block.linear.bias))
            block.linear.bias.data[:count] = -30.0

    return base.copy(of_model=[sink], layers=True), 0


@fault("dead-units", _dead, needs="layers", only=lambda n, t: t.inputs in ("vector", "image"))
def killed_on_the_way(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.family, base.act, base.norm, base.depth, base.residual, base.clip = "mlp", "relu", "none", 2, False, 0.0
    at = int(rng.uniform(0.1, 0.4) * base.steps)

    def sink(loop, step):
        if step == at:
            for block in loop.model.blocks:
                count = int((0.75, 0.9, 0.98)[s] * len(block.linear.bias))
                block.linear.bias.data[:count] -= 40.0

    return base.copy(after=[sink], layers=True), at


def _initial(a: Trace, b: Trace, _: int) -> bool:
    return finite(a) and a.loss[0] > 1.6 * a.uniform and a.loss[0] > 1.5 * b.loss[0] and worse(a, b)


def _large(times: float, where: str):
    def scale(model: nn.Module) -> None:
        for name, p in model.named_parameters():
            if p.dim() > 1 and name.startswith(where):
                p.data.mul_(times)

    return scale


@fault("bad-initialization", _initial)
def all_too_large(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    return base.copy(of_model=[_large((3, 6, 14)[s], "")]), 0


@fault("bad-initialization", _initial)
def head_too_large(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    return base.copy(of_model=[_large((15, 50, 200)[s], "head")]), 0


@fault("bad-initialization", _initial)
def unit_normal(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    def randn(model: nn.Module) -> None:
        for p in model.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=(0.4, 0.7, 1.2)[s])

    return base.copy(of_model=[randn]), 0


@fault("double-softmax", simply_worse, kinds=("cls", "tag", "lm", "s2s"))
def softmax_twice(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.smoothing = 0.0
    return base.copy(softmax="softmax"), 0


def _noisy(a: Trace, b: Trace, _: int) -> bool:
    half = a.loss[a.steps // 2 :]
    progress = abs(window(a.loss, 0.5, 0.7) - window(a.loss, 0.8, 1))
    return finite(a) and half.std() > 4 * progress and half.std() > 3 * b.loss[b.steps // 2 :].std() and worse(a, b)


@fault("noisy-loss", _noisy, kinds=("lm", "s2s"), dense=True)
def tiny_batch(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.batch = max(base.batch, 24)
    base.schedule = "cosine"
    return base.copy(batch=(3, 2, 1)[s], rate=base.rate * (base.batch / (3, 2, 1)[s]) ** -0.5), 0


@fault("evaluated-in-training-mode", lambda a, b, o: simply_worse(a, b, o) and np.diff(a.valid())[2:].std() > 0)
def dropout_stays_on(base: Plan, s: int, rng: Rng) -> tuple[Plan, int]:
    base.drop, base.evaluations = (0.25, 0.4, 0.6)[s], max(base.evaluations, 12)
    return base.copy(training_mode=True), 0
